"""What the blocks of flows need of the endpoints that they ask, by served name."""

from __future__ import annotations

from collections.abc import Iterable

from ilab.models.ability import Need
from ilab.sdg.asking import AskingBlock
from ilab.sdg.block import Block
from ilab.sdg.flow import Flow


def needs_of(flows: Iterable[Flow], model: str, scale: int) -> dict[str, list[Need]]:
    """The needs of the teacher's endpoint. Blocks that name no model ask ``model``; those that do need it at least."""
    found: dict[str, list[Need]] = {model: []}
    for block, where in _asking(flows, verifier=False):
        own = block.model if isinstance(block, AskingBlock) else None
        needs = [Need(ability, block.name, where) for ability in sorted(block.abilities(scale))]
        found.setdefault(own or model, []).extend(needs or ([Need(None, block.name, where)] if own else []))
    return found


def verifier_needs(flows: Iterable[Flow], model: str, scale: int) -> dict[str, list[Need]]:
    """The needs of the second teacher's endpoint; empty where no block asks it."""
    blocks = list(_asking(flows, verifier=True))
    named: list[Need] = []
    for block, where in blocks:
        named += [Need(ability, block.name, where) for ability in sorted(block.abilities(scale))]
    return {model: named or [Need(None, blocks[0][0].name, blocks[0][1])]} if blocks else {}


def _asking(flows: Iterable[Flow], *, verifier: bool) -> Iterable[tuple[Block, str]]:
    for flow in flows:
        for branch in flow.branches:
            for block, where in zip(branch.blocks, branch.places, strict=True):
                if block.calls_teacher and block.calls_verifier == verifier:
                    yield block, where

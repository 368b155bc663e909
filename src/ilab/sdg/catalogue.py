"""What there is in a flow, for people: its blocks with what each needs, adds and costs; and a copy to change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ilab.errors import InputError
from ilab.sdg.block import Block, GatherBlock
from ilab.sdg.flow import SHIPPED, Branch, Flow, FlowSet, load_flow, shipped
from ilab.sdg.upstream import root_of


def catalogue() -> list[dict[str, Any]]:
    """Every shipped flow: its name, the kinds of leaf that it is for, and whether it asks a teacher."""
    flows = [load_flow(name) for name in shipped()]
    return [
        {"name": flow.name, "kinds": list(flow.flows), "teacher": flow.calls_teacher, "digest": flow.digest}
        for flow in flows
    ]


def describe(flow: Flow, scale: int) -> list[dict[str, Any]]:
    """The branches of ``flow`` with their blocks, in order. Counts hold at the scale factor ``scale``.

    ``rows`` is how many rows come before a block for one input row, if every block passes on what it gets, and
    ``calls`` how often it asks the teacher for them. What an answer holds is not known before: it counts as one row.
    """
    return [
        {"branch": branch.name, "input": branch.input, "blocks": _blocks(branch, scale), "where": branch.where}
        for branch in flow.branches
    ]


def calls_per_row(flow: Flow, scale: int) -> int:
    """Teacher calls for one input row of every branch."""
    return sum(block["calls"] for branch in describe(flow, scale) for block in branch["blocks"])


def _blocks(branch: Branch, scale: int) -> list[dict[str, Any]]:
    rows, told = 1, []
    for block, where in zip(branch.blocks, branch.places, strict=True):
        told.append(
            {
                "name": block.name,
                "type": block.type,
                "version": block.version,
                "needs": sorted(block.needs()),
                "adds": sorted(block.adds()),
                "drops": sorted(block.drops()),
                "rows": rows,
                "calls": rows if block.calls_teacher else 0,
                "waits": isinstance(block, GatherBlock),
                "settings": _settings(block),
                "where": where,
            }
        )
        rows *= block.copies(scale)
    return told


def _settings(block: Block) -> dict[str, Any]:
    """The fields that were given, without the texts of files."""
    given = block.model_dump(mode="json", exclude_unset=True)
    return {name: value for name, value in given.items() if name not in ("name", *block.files)}


def copy_flow(name: str, target: Path) -> FlowSet:
    """Copy a shipped flow, or the flow in a folder, to ``target``, and load it there.

    The copy does the same, and is the same to the memo, until it is changed. Raises ``InputError`` where ``target``
    is there already, or where the flow's prompts lie outside of its folder.
    """
    flow = load_flow(name)
    folder = Path(flow.where)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError("there is something already", where=str(target), hint="name a new folder")
    if folder.parent != SHIPPED and root_of(folder / "knowledge.yaml") != folder.resolve():
        root = root_of(folder / "knowledge.yaml")
        raise InputError(
            "the prompts of this flow lie outside of its folder", where=str(folder), hint=f"copy all of {root}"
        )
    shutil.copytree(folder, target, dirs_exist_ok=True)
    return load_flow(target)

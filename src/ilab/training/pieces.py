"""One sample to the token rows it trains: encoded, and cut where it is too long.

A *piece* is one row of tokens with its mask. Most samples are one piece. A document (continued pretraining) is cut into
blocks that never hold two documents; a block begins with the last token of the one before, which bears no loss there,
so each token is predicted once. What a conversation over the limit becomes is a choice:

    drop       left out, by name
    truncate   its first ``max_length`` tokens; a cut answer gets no stop token, so nobody learns to stop in the middle
    split      cut between exchanges, each piece with the system message; an exchange over the limit is left out
    error      the run ends, and names all of them
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Literal

from ilab.data import Record
from ilab.models.renderer import Encoded, Renderer, TrainedTurns
from ilab.training.records import RawSample

OverLength = Literal["drop", "truncate", "split", "error"]
_PART = re.compile(r"/(?:part|block)-\d+$")


class EncodeOptions(Record):
    """``max_length`` is the most tokens of a piece; ``train_on`` holds for samples that do not say themselves."""

    max_length: int
    train_on: TrainedTurns = "assistant"
    over_length: OverLength = "drop"


class LeftOut(Record):
    """A sample, or a part of one, that is not trained on; ``row`` is its place in the data, from 1."""

    id: str
    row: int
    tokens: int
    reason: str
    over_length: bool = False


@dataclass(frozen=True)
class Piece:
    """A row of tokens; ``roles`` says whose each turn is. Of ``answers`` that are trained, ``stopped`` end in a stop
    token."""

    id: str
    encoded: Encoded
    roles: tuple[str, ...]
    answers: int
    stopped: int

    def counts(self) -> dict[str, tuple[int, int]]:
        """Per role its tokens, and those of them that bear loss; the first token is never predicted."""
        found: dict[str, tuple[int, int]] = {}
        for turn, trained in zip(self.encoded.turns, [False, *self.encoded.trained[1:]], strict=True):
            tokens, losses = found.get(self.roles[turn], (0, 0))
            found[self.roles[turn]] = (tokens + 1, losses + trained)
        return found


@dataclass(frozen=True)
class Cut:
    """What a sample became. ``lost`` counts tokens that were encoded and are in no piece."""

    pieces: tuple[Piece, ...]
    left_out: tuple[LeftOut, ...] = ()
    change: Literal["", "truncated", "split"] = ""
    lost: int = 0


def sample_of(piece: str) -> str:
    """The id of the sample that a piece was cut from."""
    return _PART.sub("", piece)


def cut_sample(sample: RawSample, row: int, renderer: Renderer, options: EncodeOptions) -> Cut:
    """Encode one sample. Raises InputError where the template refuses it."""
    if sample.text is not None:
        return _blocks(sample, row, renderer, options)
    train_on = _train_on(sample, options)
    encoded = renderer.encode(sample.messages, train_on, sample.tools)
    over = len(encoded.ids) > options.max_length
    if not over:
        return _kept(sample.id, row, encoded, _roles(sample.messages), renderer)
    if options.over_length == "truncate":
        return _truncated(sample, row, encoded, renderer, options)
    if options.over_length == "split":
        return _split(sample, row, renderer, options)
    return Cut((), (_too_long(sample.id, row, len(encoded.ids), options),), lost=len(encoded.ids))


def _train_on(sample: RawSample, options: EncodeOptions) -> TrainedTurns:
    if sample.unmask:
        return "all"
    return "last" if sample.last and options.train_on == "assistant" else options.train_on


def _too_long(name: str, row: int, tokens: int, options: EncodeOptions) -> LeftOut:
    reason = f"{tokens} tokens, over train_sequence_length {options.max_length}"
    return LeftOut(id=name, row=row, tokens=tokens, reason=reason, over_length=True)


def _roles(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [message["role"] for message in messages]


def _kept(name: str, row: int, encoded: Encoded, roles: Sequence[str], renderer: Renderer) -> Cut:
    """The whole of ``encoded`` as one piece, unless nothing in it bears loss."""
    if not any(encoded.trained[1:]):
        tokens = len(encoded.ids)
        return Cut((), (LeftOut(id=name, row=row, tokens=tokens, reason="no token that bears loss"),), lost=tokens)
    # Each turn's last token that bears loss: later ones take the place of earlier ones.
    last = {turn: token for token, turn in compress(zip(encoded.ids, encoded.turns, strict=True), encoded.trained)}
    ends = [token in renderer.stop_ids for turn, token in last.items() if roles[turn] in ("assistant", "document")]
    return Cut((Piece(name, encoded, tuple(roles), len(ends), sum(ends)),))


def _truncated(sample: RawSample, row: int, encoded: Encoded, renderer: Renderer, options: EncodeOptions) -> Cut:
    most = options.max_length
    head = Encoded(encoded.ids[:most], encoded.trained[:most], encoded.turns[:most])
    if not any(head.trained[1:]):
        reason = f"{len(encoded.ids)} tokens, and none of the first {most} bears loss"
        gone = LeftOut(id=sample.id, row=row, tokens=len(encoded.ids), reason=reason, over_length=True)
        return Cut((), (gone,), lost=len(encoded.ids))
    kept = _kept(sample.id, row, head, _roles(sample.messages), renderer)
    return Cut(kept.pieces, change="truncated", lost=len(encoded.ids) - most)


def _split(sample: RawSample, row: int, renderer: Renderer, options: EncodeOptions) -> Cut:
    """Pieces of as many whole exchanges as fit; for a sample of which the last turn is trained, the end that fits."""
    system = [message for message in sample.messages if message["role"] == "system"]
    exchanges = list(_exchanges([message for message in sample.messages if message["role"] != "system"]))
    train_on = _train_on(sample, options)
    groups: list[list[Mapping[str, Any]]] = []
    for exchange in reversed(exchanges) if train_on == "last" else exchanges:
        longer = (
            [*exchange, *groups[-1]] if train_on == "last" and groups else [*(groups[-1] if groups else []), *exchange]
        )
        encoded = renderer.encode([*system, *longer], train_on, sample.tools)
        if groups and len(encoded.ids) <= options.max_length:
            groups[-1] = longer
        elif not groups or train_on != "last":
            groups.append(exchange)
        else:
            break
    pieces: list[Piece] = []
    left_out: list[LeftOut] = []
    lost = 0
    for number, group in enumerate(groups, 1):
        messages = [*system, *group]
        encoded = renderer.encode(messages, train_on, sample.tools)
        name = f"{sample.id}/part-{number}"
        if len(encoded.ids) > options.max_length:
            left_out.append(_too_long(name if len(groups) > 1 else sample.id, row, len(encoded.ids), options))
            lost += len(encoded.ids)
            continue
        kept = _kept(name, row, encoded, _roles(messages), renderer)
        pieces += kept.pieces
        left_out += kept.left_out
        lost += kept.lost
    return Cut(tuple(pieces), tuple(left_out), "split" if pieces else "", lost)


def _exchanges(messages: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """A question with all that follows until the next one."""
    current: list[Mapping[str, Any]] = []
    for message in messages:
        if message["role"] == "user" and any(turn["role"] != "user" for turn in current):
            yield current
            current = []
        current.append(message)
    if current:
        yield current


def _blocks(sample: RawSample, row: int, renderer: Renderer, options: EncodeOptions) -> Cut:
    encoded = renderer.encode_document(sample.text or "")
    total, most = len(encoded.ids), options.max_length
    if total <= most:
        return _kept(sample.id, row, encoded, ["document"], renderer)
    pieces: list[Piece] = []
    for start in range(0, total - 1, most - 1):
        ids = encoded.ids[start : start + most]
        trained = [start == 0, *encoded.trained[start + 1 : start + most]]
        whole = start + most >= total
        block = Encoded(ids, trained, encoded.turns[start : start + most])
        (piece,) = _kept(f"{sample.id}/block-{len(pieces) + 1}", row, block, ["document"], renderer).pieces
        pieces.append(piece if whole else replace(piece, answers=0, stopped=0))
    return Cut(tuple(pieces))

"""Which tokens a model has to read so that many continuations of few contexts are scored, and none of them twice.

    prefix                the shots that many contexts begin with: read once, kept as keys and values
    row                   a question's own context, then its continuations as branches, one behind the other
        [ c c c c | a a | b b b ]     every branch sees prefix, context and itself, at positions as if it stood alone
    batch                 rows of one prefix and of about the same length, as many as memory and caches like

The last token of a continuation is never read; so one-token continuations add nothing to their row, and all of them
are read off the context's last position. This module only plans: no tensors, no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ilab.models.likelihood import Pair

STEP = 48  # tokens by which a prefix must be longer than the one around it to be worth a reading of its own

Read = tuple[int, int]  # (place in the row, token): the token's log-probability stands behind that place


@dataclass(frozen=True, slots=True)
class Row:
    """``ids`` as the model reads them behind the prefix, for each its ``branch`` (0: the context) and ``position``.

    ``reads`` are, for each group of pairs that ask for the same, their indices and the places to read.
    """

    ids: tuple[int, ...]
    branches: tuple[int, ...]
    positions: tuple[int, ...]
    reads: tuple[tuple[tuple[int, ...], tuple[Read, ...]], ...]

    def order(self) -> tuple[int, tuple[int, ...], object]:
        """Rows of one length stand together in a batch: the least padding."""
        return len(self.ids), self.ids, self.reads

    @property
    def branched(self) -> bool:
        return self.branches[-1] > 0

    @property
    def places(self) -> int:
        """How many positions need the vocabulary's probabilities."""
        return len({place for _, reads in self.reads for place, _ in reads})


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that stand behind the same ``prefix`` (may be empty), the shortest first."""

    prefix: tuple[int, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """What one forward pass may hold: ``rows`` (None: as many as fit), padded ``tokens``, and ``cells`` of logits."""

    tokens: int
    cells: int
    rows: int | None = None


def plan(pairs: Sequence[tuple[int, Pair]], longest: int) -> list[Group]:
    """Groups that score every (index, pair). ``longest``: sequences of more tokens share nothing (0: none shares).

    The order of groups and rows depends on the pairs alone.
    """
    asked: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for index, pair in pairs:
        asked.setdefault(pair.context, {}).setdefault(pair.continuation, []).append(index)
    shared, alone = {}, []
    for context, options in asked.items():
        if len(context) + max(map(len, options)) - 1 <= longest:
            shared[context] = options
        else:
            alone += [_row(context, {option: indices}) for option, indices in options.items()]
    contexts = sorted(shared)
    common = [_common(one, other) for one, other in pairwise(contexts)]
    grouped: dict[tuple[int, ...], list[Row]] = {}
    for start, end, depth in _prefixes(contexts, common, 0, len(contexts), 0):
        rows = grouped.setdefault(contexts[start][:depth], [])
        rows += [_row(context[depth:], shared[context]) for context in contexts[start:end]]
    # Rows that share nothing stay by themselves: in a batch with branches, they would be read under their mask.
    found = [*grouped.items(), *([((), alone)] if alone else [])]
    return [Group(prefix, tuple(sorted(rows, key=Row.order))) for prefix, rows in found]


def batches(group: Group, room: Room, vocabulary: int) -> Iterator[list[Row]]:
    """The rows of ``group`` in forward passes. A row too large for ``room`` goes alone."""
    batch: list[Row] = []
    places = 0
    for row in group.rows:
        count = len(batch) + 1
        # Keys and values of the prefix are held for every row, at a fraction of what computing a token takes.
        tokens = count * max(len(row.ids), (len(group.prefix) + len(row.ids)) // 4)
        over = tokens > room.tokens or (places + row.places) * vocabulary > room.cells
        if batch and (over or (room.rows is not None and count > room.rows)):
            yield batch
            batch, places = [], 0
        batch.append(row)
        places += row.places
    if batch:
        yield batch


def _row(context: tuple[int, ...], options: dict[tuple[int, ...], list[int]]) -> Row:
    """One context with its continuations. A single one simply goes on; several become branches."""
    ids, branches, positions = list(context), [0] * len(context), list(range(len(context)))
    reads = []
    several = sum(len(option) > 1 for option in options) > 1
    for option, indices in options.items():
        places = [len(context) - 1, *range(len(ids), len(ids) + len(option) - 1)]
        reads.append((tuple(indices), tuple(zip(places, option, strict=False))))
        if len(option) > 1:
            ids += option[:-1]
            branches += [branches[-1] + 1 if several else 0] * (len(option) - 1)
            positions += range(len(context), len(context) + len(option) - 1)
    return Row(tuple(ids), tuple(branches), tuple(positions), tuple(reads))


def _prefixes(
    contexts: Sequence[tuple[int, ...]], common: Sequence[int], start: int, end: int, depth: int
) -> Iterator[tuple[int, int, int]]:
    """(start, end, length of the prefix) of runs of the sorted ``contexts``, each as deep as it pays.

    ``common`` are the tokens that neighbours share. A deeper prefix is read once more itself and spares every context
    of its run what it is deeper by.
    """
    first = start
    for stop in range(start + 1, end + 1):
        if stop < end and common[stop - 1] >= depth + STEP:
            continue
        run = range(first, stop)
        # A context keeps one token at least for its own row: the position that its continuations are read off.
        deeper = min((common[at] for at in run[:-1]), default=0)
        deeper = min(deeper, min(len(contexts[at]) for at in run) - 1)
        if len(run) > 1 and deeper >= depth + STEP and len(run) * (deeper - depth) > deeper:
            yield from _prefixes(contexts, common, first, stop, deeper)
        else:
            yield first, stop, depth
        first = stop


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two contexts begin with together."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

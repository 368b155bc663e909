"""Training data as token rows with masks, and the audit that comes before any step is trained.

What bears loss is decided by the one ``Renderer`` that serving and packaging use too; how a long sample is cut, by
:mod:`ilab.training.pieces`. Rows that cannot train are left out *by name*, never in silence. The tokens of a set lie in
two flat arrays, in memory here, mapped from a file where :mod:`ilab.training.shards` keeps them.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from ilab.data import seed_from
from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.training.audit import Audit, Tally
from ilab.training.pieces import EncodeOptions, sample_of
from ilab.training.records import RawSample
from ilab.training.workers import cut_in_order

TOKEN = np.dtype("<i4")
MASK = np.dtype(np.bool_)
Progress = Callable[[int, int], None]  # rows and tokens encoded so far
EVERY = 256  # rows between two reports of progress


class TokenRows(Sequence[NDArray[Any]]):
    """Rows of a flat array: row ``i`` is ``values[starts[i]:ends[i]]``, a view."""

    def __init__(self, values: NDArray[Any], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self._values, self._starts, self._ends = values, starts, ends

    @classmethod
    def of_ends(cls, values: NDArray[Any], ends: NDArray[np.int64]) -> TokenRows:
        """Rows that lie one behind the other and end at ``ends``."""
        return cls(values, np.concatenate([np.zeros(1, np.int64), ends[:-1]]), ends)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> TokenRows: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any] | TokenRows:
        if isinstance(index, slice):
            return TokenRows(self._values, self._starts[index], self._ends[index])
        return self._values[self._starts[index] : self._ends[index]]

    def take(self, indices: Sequence[int]) -> TokenRows:
        """Some of the rows, in the order of ``indices``; nothing is copied."""
        chosen = np.asarray(indices, dtype=np.int64)
        return TokenRows(self._values, self._starts[chosen], self._ends[chosen])

    @property
    def lengths(self) -> list[int]:
        found: list[int] = (self._ends - self._starts).tolist()
        return found


@dataclass(frozen=True)
class EncodedSet:
    """``ids[i]`` (int32) and ``trained[i]`` (bool) belong to ``rows[i]``. ``left_out`` are (row id, reason)."""

    rows: tuple[str, ...]
    ids: Sequence[Sequence[int] | NDArray[Any]]
    trained: Sequence[Sequence[bool] | NDArray[Any]]
    left_out: tuple[tuple[str, str], ...] = ()
    audit: Audit | None = None

    @cached_property
    def lengths(self) -> list[int]:
        return self.ids.lengths if isinstance(self.ids, TokenRows) else [len(ids) for ids in self.ids]

    @cached_property
    def trained_counts(self) -> list[int]:
        """Tokens that bear loss. The first token of a row is never predicted, so it never counts."""
        return [int(np.count_nonzero(mask[1:])) for mask in self.trained]

    def take(self, indices: Sequence[int]) -> EncodedSet:
        """The rows at ``indices``; what was left out of the whole set is not told of a part."""
        ids, trained = self.ids, self.trained
        if isinstance(ids, TokenRows) and isinstance(trained, TokenRows):
            return EncodedSet(tuple(self.rows[i] for i in indices), ids.take(indices), trained.take(indices))
        return EncodedSet(
            tuple(self.rows[i] for i in indices), tuple(ids[i] for i in indices), tuple(trained[i] for i in indices)
        )


def split_rows(data: EncodedSet, share: float, seed: int) -> tuple[EncodedSet, EncodedSet]:
    """(training, held out): each sample's place derives from its id alone, so another row more moves nobody.

    The parts of one sample stay together. Raises InputError when nothing is left to train on.
    """
    if not share:
        return data, EncodedSet((), (), ())
    held = held_out([sample_of(row) for row in data.rows], share, seed)
    kept = data.take([index for index, out in enumerate(held) if not out])
    training = EncodedSet(kept.rows, kept.ids, kept.trained, data.left_out, data.audit)
    return training, data.take([index for index, out in enumerate(held) if out])


def held_out(samples: Sequence[str], share: float, seed: int) -> list[bool]:
    """Of each sample's id whether it is held out of training. Raises ``InputError`` where all are."""
    found = [seed_from(f"validation/{sample}", seed) / (1 << 63) < share for sample in samples]
    if found and all(found):
        raise InputError("every row is held out of training", hint="lower train_validation_share")
    return found


def encode_samples(
    samples: Iterable[RawSample], renderer: Renderer, options: EncodeOptions, progress: Progress | None = None
) -> EncodedSet:
    """Encode and audit, in memory. Raises InputError for data that must not be trained on (``Audit.check``)."""
    ids, trained = io.BytesIO(), io.BytesIO()
    names, ends, audit = encode_into((ids, trained), samples, renderer, options, progress)
    audit.check()
    return encoded_set(
        names, (np.frombuffer(ids.getbuffer(), TOKEN), np.frombuffer(trained.getbuffer(), MASK)), ends, audit
    )


def encoded_set(
    names: Sequence[str], values: tuple[NDArray[Any], NDArray[Any]], ends: NDArray[np.int64], audit: Audit
) -> EncodedSet:
    """A set whose tokens and masks lie flat in ``values``."""
    left_out = tuple((one.id, one.reason) for one in audit.left_out)
    tokens, masks = values
    return EncodedSet(tuple(names), TokenRows.of_ends(tokens, ends), TokenRows.of_ends(masks, ends), left_out, audit)


def encode_into(
    files: tuple[BinaryIO, BinaryIO],
    samples: Iterable[RawSample],
    renderer: Renderer,
    options: EncodeOptions,
    progress: Progress | None = None,
    workers: int = 1,
) -> tuple[list[str], NDArray[np.int64], Audit]:
    """Stream ``samples`` as flat tokens and masks into ``files``. Returns row ids, where each row ends, the audit."""
    tokens_file, masks_file = files
    tally = Tally(options, renderer)
    names: list[str] = []
    ends, total = array("q"), 0
    for row, (sample, cut) in enumerate(cut_in_order(samples, renderer, options, workers), 1):
        tally.add(sample, cut)
        for piece in cut.pieces:
            tokens_file.write(np.asarray(piece.encoded.ids, TOKEN).tobytes())
            masks_file.write(np.asarray(piece.encoded.trained, MASK).tobytes())
            total += len(piece.encoded.ids)
            ends.append(total)
            names.append(piece.id)
        if progress and row % EVERY == 0:
            progress(row, total)
    return names, np.frombuffer(ends, np.int64), tally.audit()

"""A small part of the samples that stands for all of them: facility location, greedily, on a CPU.

    texts ──hashed character 3- to 5-grams, tf-idf──▶ unit vectors ──k nearest──▶ sparse similarities ──▶ chosen

The part S that is looked for maximises f(S) = sum over all samples i of the largest similarity of i to a member of S
(facility location; Mirzasoleiman et al., "Lazier than lazy greedy", AAAI 2015, and Minoux 1978 for the lazy greedy used
here). Greedy reaches at least 1 - 1/e of the best. Gains only shrink as S grows, so a candidate whose stale gain is
already below a fresh one need not be looked at again: lazy and plain greedy choose the same.

Only the ``NEIGHBOURS`` nearest of each sample keep a similarity, others count as 0, so memory grows with the number of
samples and not with its square. All ties go to the smaller position, vectors derive from the text alone, and the
sums are made in one order: the same samples give the same part on every run.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ilab.errors import InputError

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

GRAMS = (3, 4, 5)  # lengths in characters
DIMENSIONS = 512  # of the vectors into which the grams are hashed
NEIGHBOURS = 64  # of each sample whose similarities are kept
BLOCK = 256  # samples compared at once: BLOCK x samples floats are in memory
CHARACTERS = 4000  # of a text that are looked at; the rest of a long one changes little


@dataclass(frozen=True)
class Similar:
    """Sparse similarities: row i holds ``values[starts[i]:starts[i + 1]]`` towards those ``columns``, all above 0.

    Row i is what a sample i would stand for: similarities are symmetric and i stands for itself with 1.
    """

    starts: Ints
    columns: Ints
    values: Floats

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, index: int) -> tuple[Ints, Floats]:
        part = slice(self.starts[index], self.starts[index + 1])
        return self.columns[part], self.values[part]


def count_of(size: str, total: int) -> int:
    """How many of ``total`` a size means: a number (``500``) or a share (``0.1``, ``10%``), rounded up."""
    try:
        share = float(size.rstrip("%")) / (100 if size.endswith("%") else 1)
    except ValueError as error:
        raise InputError(f"not a size: {size!r}", hint="give a number (500) or a share (0.1 or 10%)") from error
    if size.isdigit():
        count = int(size)
    elif 0 < share <= 1:
        count = int(np.ceil(round(share * total, 6)))
    else:
        raise InputError(f"a share is above 0 and at most 1, not {size}", hint="give 0.1 or 10% for a tenth")
    if count < 1:
        raise InputError("a subset has at least one sample", hint="give a number above 0")
    return min(count, total)


def vectors(texts: Sequence[str]) -> Floats:
    """One unit vector of ``DIMENSIONS`` for each text: hashed character grams, weighted by how few texts have them.

    Feature hashing with signs (Weinberger et al., ICML 2009). A text without any gram gets the zero vector.
    """
    made = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    having = np.zeros(DIMENSIONS, dtype=np.int64)
    for index, text in enumerate(texts):
        hashes = _hashes(text)
        places = hashes % DIMENSIONS
        signs = np.where((hashes >> 20) & 1, 1.0, -1.0)
        made[index] = np.bincount(places, weights=signs, minlength=DIMENSIONS)
        having[np.unique(places)] += 1
    np.multiply(np.sign(made), np.log1p(np.abs(made)), out=made)
    made *= np.log((1 + len(texts)) / (1 + having)).astype(np.float32) + 1
    return unit(made)


def unit(made: Floats) -> Floats:
    """Rows of length 1; rows of zeros stay. Raises InputError where a number is not finite."""
    if not np.isfinite(made).all():
        raise InputError("an embedding holds numbers that are not finite")
    lengths = np.linalg.norm(made, axis=1, keepdims=True)
    scaled: Floats = np.divide(made, lengths, out=np.zeros_like(made), where=lengths > 0)
    return scaled


def similarities(rows: Floats, neighbours: int = NEIGHBOURS) -> Similar:
    """Cosine similarities of unit vectors, of each with its nearest; a pair counts for both sides."""
    total = len(rows)
    kept = min(neighbours, total - 1)
    left, right, values = [np.arange(total)], [np.arange(total)], [np.ones(total, dtype=np.float32)]
    for begin in range(0, total, BLOCK) if kept > 0 else ():
        block = rows[begin : begin + BLOCK] @ rows.T
        own = np.arange(len(block))
        block[own, begin + own] = -2.0  # oneself is there already
        nearest = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        found = np.take_along_axis(block, nearest, axis=1)
        here = found > 0
        left.append(np.repeat(begin + own, here.sum(axis=1)))
        right.append(nearest[here])
        values.append(np.round(found[here], 5).astype(np.float32))  # so that one ulp decides nothing
    return _symmetric(np.concatenate(left), np.concatenate(right), np.concatenate(values), total)


def facility_location(similar: Similar, count: int) -> list[int]:
    """The positions of ``count`` samples by lazy greedy, the one that stands for most first."""
    best = np.zeros(len(similar), dtype=np.float64)
    queue = [(-_gain(similar, index, best), index) for index in range(len(similar))]
    heapq.heapify(queue)
    chosen: list[int] = []
    while queue and len(chosen) < count:
        _, index = heapq.heappop(queue)
        fresh = (-_gain(similar, index, best), index)
        if queue and fresh > queue[0]:
            heapq.heappush(queue, fresh)
            continue
        chosen.append(index)
        columns, values = similar.row(index)
        best[columns] = np.maximum(best[columns], values)
    return chosen


def coverage(similar: Similar, chosen: Sequence[int]) -> float:
    """The mean, over all samples, of the largest similarity to a chosen one: 1 where every sample has its equal."""
    best = np.zeros(len(similar), dtype=np.float64)
    for index in chosen:
        columns, values = similar.row(index)
        best[columns] = np.maximum(best[columns], values)
    return float(best.mean())


def _gain(similar: Similar, index: int, best: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    columns, values = similar.row(index)
    return float(np.maximum(values - best[columns], 0.0).sum())


def _symmetric(left: Ints, right: Ints, values: Floats, total: int) -> Similar:
    """Both directions of every pair, each once, sorted by row and column.

    A pair that both sides found has the larger of the two values: a matrix product may round them differently.
    """
    pairs, place = np.unique(np.minimum(left, right) * total + np.maximum(left, right), return_inverse=True)
    largest = np.full(len(pairs), -np.inf, dtype=np.float32)
    np.maximum.at(largest, place, values)
    codes = np.concatenate([pairs, pairs % total * total + pairs // total])
    codes, first = np.unique(codes, return_index=True)
    both = np.concatenate([largest, largest])[first]
    starts = np.searchsorted(codes, np.arange(total + 1, dtype=np.int64) * total)
    return Similar(starts.astype(np.int64), codes % total, both)


def _hashes(text: str) -> Ints:
    """CRC-32 of every gram of ``text``, without regard to case and to how much white space there is."""
    text = f" {' '.join(text.casefold().split())} "[:CHARACTERS]
    grams = (text[at : at + size] for size in GRAMS for at in range(len(text) - size + 1))
    return np.fromiter((zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams), dtype=np.int64)

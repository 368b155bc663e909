"""Near-duplicates: pairs that a teacher wrote almost word for word twice. The first by id stays.

    pairs ──words in threes──▶ sets ──128 minima──▶ bands ──equal bands──▶ candidates ──exact Jaccard──▶ repeats

Two pairs are alike when the word 3-shingles of question and answer together have a Jaccard similarity of at least the
threshold (Broder, 1997), and so have the answers alone and the contexts: a long question that is asked again does not
make two different answers one, and a task set for two texts is not one task.

Candidates come from MinHash signatures cut into bands (locality-sensitive hashing: Leskovec, Rajaraman and Ullman,
*Mining of Massive Datasets*, chapter 3): pairs of similarity ``s`` share one of ``b`` bands of ``r`` minima with
probability ``1 - (1 - s^r)^b``. Bands are as wide as still find 99 of 100 pairs that lie right at the threshold. Each
candidate is then compared exactly, so nothing is refused that is not alike. Hashes are of fixed seeds (BLAKE2, then
multiply-shift: Dietzfelbinger et al., 1997): the same pairs give the same result everywhere. Only band keys are kept,
8 bytes for each band, and of each minimum one byte (Li and König, "b-bit minwise hashing", 2010), so memory grows
slowly with the number of samples. Where thousands are made from one pattern, every one is a candidate of every other:
then those whose bytes agree most are compared, and only so many, which bounds the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ilab.data import Rejected
from ilab.sdg.made import NEAR, Made
from ilab.sdg.text import normal

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Numbers = np.ndarray[Any, np.dtype[np.int32]]

PERMUTATIONS = 128
SHINGLE = 3  # words
FOUND = 0.99  # least share of pairs right at the threshold that must become candidates
BATCH = 1 << 16  # shingles that are hashed at once: small enough for a processor's cache
FULL = 500  # texts that stay are noted under one band, at most
COMPARED = 100  # texts that one is compared with, at most
SETS = 4096  # sets of shingles that are kept for further comparisons


class Text(NamedTuple):
    """What is compared."""

    question: str
    answer: str
    context: str | None = None


def near_duplicates(made: Sequence[Made], threshold: float) -> tuple[list[Made], list[Rejected]]:
    """``made`` without the written pairs that are alike to one with a smaller id.

    Rows made by rule are alike by design and stay. A ``threshold`` of 1 keeps everything.
    """
    written = sorted((one for one in made if one.is_written_pair), key=lambda one: one.sample.id)
    if threshold >= 1 or len(written) < 2:
        return list(made), []
    found = repeats([Text(one.question, one.answer, one.context) for one in written], threshold)
    dropped = {}
    for number, (first, similarity) in found.items():
        one = written[number]
        reason = f"near-duplicate: {similarity:.2f} alike to {written[first].sample.id}"
        dropped[one.sample.id] = one.refuse(NEAR, reason)
    kept = [one for one in made if one.sample.id not in dropped]
    return kept, [dropped[one.sample.id] for one in made if one.sample.id in dropped]


def repeats(texts: Sequence[Text], threshold: float) -> dict[int, tuple[int, float]]:
    """The texts that repeat an earlier one: position to (position of the first that stays, similarity).

    Every text is compared with those before it that stay, so a chain of small changes does not end in one text.
    """
    keys, signs = _keys(texts, *bands(threshold))
    buckets, count = _buckets(keys)
    staying: list[list[int]] = [[] for _ in range(count)]

    @lru_cache(maxsize=SETS)
    def parts(number: int) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        text = texts[number]
        answer = shingles(text.answer)
        return shingles(text.question) | answer, answer, shingles(text.context or "")

    def alike(first: int, second: int) -> float | None:
        found = [jaccard(one, other) for one, other in zip(parts(first), parts(second), strict=True)]
        return found[0] if min(found) >= threshold else None

    repeated: dict[int, tuple[int, float]] = {}
    for number in np.flatnonzero((buckets >= 0).any(axis=1)).tolist():
        shared = [bucket for bucket in buckets[number].tolist() if bucket >= 0]
        for first in _likeliest(sorted({first for bucket in shared for first in staying[bucket]}), number, signs):
            similarity = alike(first, number)
            if similarity is not None:
                repeated[number] = first, similarity
                break
        else:
            for bucket in shared:
                if len(staying[bucket]) < FULL:
                    staying[bucket].append(number)
    return repeated


def bands(threshold: float) -> tuple[int, int]:
    """Number and width of the bands: the widest that find enough of the pairs right at the threshold."""
    for width in range(PERMUTATIONS, 1, -1):
        count = PERMUTATIONS // width
        if 1 - (1 - threshold**width) ** count >= FOUND:
            return count, width
    return PERMUTATIONS, 1


def shingles(text: str) -> frozenset[str]:
    """The runs of three words in ``text``'s normal form; of a shorter text, all of it."""
    found = normal(text).split()
    if not found:
        return frozenset()
    return frozenset(" ".join(found[at : at + SHINGLE]) for at in range(max(1, len(found) - SHINGLE + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """What two sets share, of all they have. Two empty sets are equal."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 1.0


def _likeliest(candidates: list[int], number: int, signs: Bytes) -> list[int]:
    """``candidates``, or those of them that agree with ``number`` in most bytes."""
    if len(candidates) <= COMPARED:
        return candidates
    found = np.array(candidates)
    agreeing = (signs[found] == signs[number]).sum(axis=1)
    likeliest: list[int] = found[np.lexsort((found, -agreeing))[:COMPARED]].tolist()
    return likeliest


def _keys(texts: Sequence[Text], count: int, width: int) -> tuple[Hashes, Bytes]:
    """For each text (rows) a key for each band (equal keys are equal minima, as good as certainly), and a byte of each
    minimum.
    """
    factors, shifts = _permutations()
    keys = np.empty((len(texts), count), dtype=np.uint64)
    signs = np.empty((len(texts), count * width), dtype=np.uint8)
    for first, hashes, starts in _batches(texts):
        for band in range(count):
            key = np.full(len(starts), band, dtype=np.uint64)
            for member in range(band * width, (band + 1) * width):
                minima = np.minimum.reduceat((hashes * factors[member] + shifts[member]) >> np.uint64(32), starts)
                key = _mix(key * _ODD + minima)
                signs[first : first + len(starts), member] = minima & np.uint64(0xFF)
            keys[first : first + len(starts), band] = key
    return keys, signs


def _batches(texts: Sequence[Text]) -> Iterator[tuple[int, Hashes, np.ndarray[Any, np.dtype[np.int64]]]]:
    """Position of the batch's first text, hashes of its texts' shingles end to end, and where each text begins."""
    known: dict[str, int] = {}
    first, threes, starts = 0, list[int](), list[int]()

    def hashed(text: str) -> list[int]:
        found = normal(text).split()
        found += [""] * (SHINGLE - len(found)) if found else []
        for word in found:
            if word not in known:
                digest = hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest()
                known[word] = int.from_bytes(digest)
        return [known[word] for word in found]

    words: list[int] = []
    for number, text in enumerate(texts):
        starts.append(len(threes))
        for part in (text.question, text.answer):
            at = len(words)
            words += hashed(part)
            threes += range(at, len(words) - SHINGLE + 1)
        if starts[-1] == len(threes):  # a pair without a word
            words += [0] * SHINGLE
            threes.append(len(words) - SHINGLE)
        if len(threes) >= BATCH or number == len(texts) - 1:
            yield first, _hashes(words, threes), np.array(starts)
            first, threes, starts, words = number + 1, [], [], []


def _hashes(words: Sequence[int], threes: Sequence[int]) -> Hashes:
    word, at = np.array(words, dtype=np.uint64), np.array(threes)
    made = word[at]
    for offset in range(1, SHINGLE):
        made = _mix(made * _ODD + word[at + offset])
    return _mix(made)


def _buckets(keys: Hashes) -> tuple[Numbers, int]:
    """For each text and band the number of its bucket, -1 where no other text has the same key; how many buckets."""
    buckets: Numbers = np.full(keys.shape, -1, dtype=np.int32)
    count = 0
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        ranked = keys[order, band]
        same = np.zeros(len(ranked) + 1, dtype=bool)  # whether the key at this rank is that of the rank before
        same[1:-1] = ranked[1:] == ranked[:-1]
        shared = same[:-1] | same[1:]
        numbers = np.cumsum(~same[:-1] & shared) - 1 + count
        buckets[order[shared], band] = numbers[shared]
        count += int((~same[:-1] & shared).sum())
    return buckets, count


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: Hashes) -> Hashes:
    """A bijection of 64-bit numbers after which every bit depends on all (SplitMix64: Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _permutations() -> tuple[Hashes, Hashes]:
    """Odd factors and summands of the hash functions."""
    drawn = [hashlib.blake2b(f"minhash {n}".encode(), digest_size=16).digest() for n in range(PERMUTATIONS)]
    factors = [int.from_bytes(both[:8]) | 1 for both in drawn]
    return np.array(factors, dtype=np.uint64), np.array([int.from_bytes(both[8:]) for both in drawn], dtype=np.uint64)

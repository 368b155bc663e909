"""New skill examples from the seed examples of one leaf, by recombination. No language model is involved.

Many skills have answers of one fixed form, such as ``ITEM: pears | TO: Norhaven``. What all answers have in
common is the *template*; what varies between its fixed parts are the *slots*. A seed is usable when its
answer fits the template and each of its slot values stands exactly once, as whole words, in its question and
context: the *frame* is that question and context with the values taken out. Any usable frame can then be
filled with any values that usable seeds gave for the same slots, which gives ``frames * values ** slots``
combinations for the leaf.

Slots are found by aligning the answers' tokens (words and single marks): a token belongs to the template
when every answer has it, in the same order; the slots are where most answers have something else in between.
Any two texts in one language share a few words, so answers whose common tokens are less than a quarter of
the whole are called free text. A value that all seeds share becomes part of the template, which is harmless:
it stays in the frames, too.

This is sound for skills that copy: what stands in the question goes into its field. Where the answer is
worked out (a sum, an order, a choice), exchanged values make it wrong, and nothing here can see that;
a person must look at the combinations.

Combinations are drawn without replacement by their numbers, which are decoded in mixed radix; the product is
never enumerated. Combinations that equal a seed are not left out; the caller filters those.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

_TOKEN = re.compile(r"\w+|[^\w\s]")
_LONGEST = 600  # tokens in an answer; alignment takes the square of this


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed example of a skill leaf."""

    question: str
    context: str | None
    answer: str


@dataclass(frozen=True, slots=True)
class Combination:
    """One recombined example, with the seed that gave the frame and for each slot the seed of its value."""

    question: str
    context: str | None
    answer: str
    frame: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """The answers' slots, how many seeds are usable, and why nothing can be recombined, if so."""

    slots: int
    frames: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class _Plan:
    fixed: tuple[str, ...]  # the template's fixed texts: before, between and after the slots
    values: dict[int, tuple[str, ...]]  # for each usable seed its slot values
    reason: str | None = None


def analyse(seeds: Sequence[Seed]) -> Analysis:
    """What can be recombined from these seeds, in a form to show to the people who wrote them."""
    plan = _plan(seeds)
    return Analysis(max(len(plan.fixed) - 1, 0), len(plan.values), plan.reason)


def recombine(seeds: Sequence[Seed], limit: int, seed: int) -> list[Combination]:
    """At most ``limit`` different combinations, drawn with ``seed``; none when `analyse` gives a reason.

    Combinations are different in (frame, values); two may read alike when two seeds share a value. Each
    combination's answer has every slot value standing in its question or context.
    """
    plan = _plan(seeds)
    if plan.reason is not None or limit <= 0:
        return []
    usable = list(plan.values)
    slots = len(plan.fixed) - 1
    total = len(usable) ** (slots + 1)
    numbers = _draw(total, min(limit, total), seed)
    found = []
    for number in numbers:
        digits = []
        for _ in range(slots + 1):
            number, digit = divmod(number, len(usable))  # noqa: PLW2901
            digits.append(usable[digit])
        found.append(_fill(seeds, plan, digits[0], tuple(digits[1:])))
    return found


def _draw(total: int, count: int, seed: int) -> list[int]:
    """``count`` different numbers below ``total``, however large it is."""
    rng = random.Random(seed)
    if total < 2**31:
        return rng.sample(range(total), count)
    # range() has no length beyond the machine's word; so many numbers hardly ever repeat.
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn[rng.randrange(total)] = None
    return list(drawn)


def _fill(seeds: Sequence[Seed], plan: _Plan, frame: int, sources: tuple[int, ...]) -> Combination:
    fresh = [plan.values[source][slot] for slot, source in enumerate(sources)]
    old = plan.values[frame]
    base = seeds[frame]
    answer = plan.fixed[0] + "".join(value + text for value, text in zip(fresh, plan.fixed[1:], strict=True))
    context = None if base.context is None else _replace(base.context, old, fresh)
    return Combination(_replace(base.question, old, fresh), context, answer, frame, sources)


def _replace(text: str, old: Sequence[str], fresh: Sequence[str]) -> str:
    """The text with every old value replaced by the fresh one, all at once."""
    spots = sorted((spot[0], len(value), slot) for slot, value in enumerate(old) if (spot := _spots(text, value)))
    pieces, position = [], 0
    for start, length, slot in spots:
        pieces += [text[position:start], fresh[slot]]
        position = start + length
    return "".join([*pieces, text[position:]])


def _spots(text: str, value: str) -> list[int]:
    """Where ``value`` stands in ``text`` as whole words."""
    return [spot.start() for spot in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text)]


def _plan(seeds: Sequence[Seed]) -> _Plan:
    """The template and the usable seeds, or a plan whose ``reason`` says why there is none."""
    if len(seeds) < 2:
        return _Plan((), {}, "There are fewer than two examples, so nothing can be exchanged between them.")
    answers = [seed.answer.strip() for seed in seeds]
    if len(set(answers)) == 1:
        return _Plan((), {}, "All answers are the same, so there is nothing to exchange.")
    fixed = _template(answers)
    if not fixed:
        return _Plan((), {}, "The answers have no fixed wording in common: they are free text, not a form with fields.")
    values: dict[int, tuple[str, ...]] = {}
    for index, answer in enumerate(answers):
        read = _read(answer, fixed)
        if read is not None and _usable(seeds[index], read):
            values[index] = read
    if len(values) < 2:
        some = "only one example has" if values else "no example has"
        return _Plan(
            fixed,
            values,
            f"The answers share a form, but {some} every field of its answer standing word for"
            " word, and once only, in its question or context.",
        )
    return _Plan(fixed, values)


def _template(answers: Sequence[str]) -> tuple[str, ...]:
    """The fixed texts that the answers share, in order, one more than slots; empty for free text."""
    spans = [[match.span() for match in _TOKEN.finditer(answer)] for answer in answers]
    tokens = [[answer[start:end] for start, end in span] for answer, span in zip(answers, spans, strict=True)]
    if not all(0 < len(answer) <= _LONGEST for answer in tokens):
        return ()
    common = reduce(_common, tokens)
    if 4 * len(common) * len(tokens) < sum(map(len, tokens)) or not common:
        return ()
    # For each answer the token numbers of the template; a jump in them is a slot.
    places = [[-1, *_places(answer, common), len(answer)] for answer in tokens]
    shapes = [tuple(b - a > 1 for a, b in pairwise(place)) for place in places]
    shape = Counter(shapes).most_common(1)[0][0]
    model = shapes.index(shape)
    fixed, start = [], 0
    for (left, right), slot in zip(pairwise(places[model]), shape, strict=True):
        if slot:
            fixed.append(answers[model][start : spans[model][left + 1][0]])
            start = spans[model][right - 1][1]
    fixed.append(answers[model][start:])
    return tuple(fixed)


def _common(left: list[str], right: list[str]) -> list[str]:
    """A longest common subsequence of two token lists."""
    rows = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            rows[i][j] = rows[i + 1][j + 1] + 1 if left[i] == right[j] else max(rows[i + 1][j], rows[i][j + 1])
    found, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            found.append(left[i])
            i, j = i + 1, j + 1
        elif rows[i + 1][j] >= rows[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def _places(tokens: list[str], common: Sequence[str]) -> list[int]:
    places, position = [], 0
    for token in common:
        position = tokens.index(token, position)
        places.append(position)
        position += 1
    return places


def _read(answer: str, fixed: tuple[str, ...]) -> tuple[str, ...] | None:
    """The slot values of one answer, or None when it does not fit the template or a value is empty."""
    if not answer.startswith(fixed[0]):
        return None
    values, position = [], len(fixed[0])
    for index, text in enumerate(fixed[1:], start=2):
        # The last fixed text ends the answer; the others are taken where they first stand.
        end = len(answer) - len(text) if index == len(fixed) else answer.find(text, position + 1)
        if end <= position or not answer.startswith(text, end):
            return None
        values.append(answer[position:end])
        position = end + len(text)
    return tuple(values) if values and all(value.strip() == value for value in values) else None


def _usable(seed: Seed, values: tuple[str, ...]) -> bool:
    """Whether each value stands exactly once in question and context together, and no two overlap."""
    taken: list[tuple[int, int, int]] = []
    for value in values:
        spots = [
            (part, at) for part, text in enumerate((seed.question, seed.context or "")) for at in _spots(text, value)
        ]
        if len(spots) != 1:
            return False
        taken.append((*spots[0], len(value)))
    taken.sort()
    return all(a[0] != b[0] or a[1] + a[2] <= b[1] for a, b in pairwise(taken))

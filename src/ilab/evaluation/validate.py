"""Is a set of questions fit to measure with? What is wrong with each one, by reason.

    error     must not be asked: empty, the answer is no option, options alike, the same question twice, a training row
    warning   worth a look: one option within another, nearly a training row, the document does not say the answer, it
              can be guessed without the document, the right option mostly stands at one position

A question is sound if it can be answered *with* its document and not without it. A model says so where one is given;
otherwise words do: the answer's words must occur in the leaf's passages, and the question's wording must not point to
the right option alone (:mod:`ilab.evaluation.baseline`). Rules about words are guesses, so they only warn.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ilab.data import Chunk, Item, Record
from ilab.evaluation.answers import content_words, words
from ilab.evaluation.baseline import choices_only
from ilab.evaluation.compare import kind_of
from ilab.evaluation.passages import passages
from ilab.evaluation.prompts import same_question

Level = Literal["error", "warning"]

EMPTY = "the question is empty"
NO_GOLD = "the answer is empty"
NOT_AMONG = "the answer is not among the options"
TOO_FEW = "fewer than two options"
EMPTY_OPTION = "an option is empty"
SAME_OPTIONS = "two options are the same"
CONTAINED = "one option stands within another"
DUPLICATE = "the same question again"
TRAINED = "the question is a training row"
NEAR_TRAINED = "nearly a training row"
UNSUPPORTED = "the document does not say the answer"
GUESSABLE = "the wording alone gives the answer away"
UNANSWERED = "not answered with the document"
KNOWN = "answered without the document"
NO_PASSAGE = "its document is not known"

ERRORS = frozenset({EMPTY, NO_GOLD, NOT_AMONG, TOO_FEW, EMPTY_OPTION, SAME_OPTIONS, DUPLICATE, TRAINED})
NEAR = 0.8  # Jaccard similarity of word threes from which a question is nearly a training row's
CHANCE = 0.001  # below this the right option's positions are called skewed
SUPPORT = 0.5  # least share of the answer's words that must stand in one passage

# Items and the passages to be answered with (None: without): whether each is right, None where nobody can say.
Solve = Callable[[Sequence[tuple[Item, str | None]]], Sequence[bool | None]]


class Flaw(Record):
    """One thing that is wrong with one item; ``detail`` says with what."""

    item: str
    leaf: str
    level: Level
    reason: str
    question: str
    detail: str = ""


class Positions(Record):
    """How often the right option stands at each position; ``skewed`` where chance would hardly give that."""

    leaf: str
    counts: tuple[int, ...]
    skewed: bool


class Validation(Record):
    """What :func:`validate` found. ``dropped`` counts the items that were left out before, by reason."""

    items: int
    sound: int
    flaws: tuple[Flaw, ...]
    reasons: dict[str, int]
    dropped: dict[str, int]
    positions: tuple[Positions, ...]
    solved: dict[str, float | None]  # share answered "with" and "without" the document, where somebody was asked
    how: str

    @property
    def failed(self) -> bool:
        return any(flaw.level == "error" for flaw in self.flaws)


def validate(
    items: Sequence[Item],
    chunks: Sequence[Chunk] = (),
    trained: Sequence[str] = (),
    solve: Solve | None = None,
    dropped: Mapping[str, int] | None = None,
) -> Validation:
    """Look at ``items``. ``trained`` are the questions of training rows, ``chunks`` the passages of the leaves.

    Without chunks nothing is said about documents, without ``solve`` words are compared instead of asking anybody.
    """
    flaws = [*_forms(items), *_duplicates(items), *_overlap(items, trained)]
    broken = {flaw.item for flaw in flaws if flaw.level == "error"}
    fit = [item for item in items if item.id not in broken]
    solved: dict[str, float | None] = {}
    if solve is not None:
        more, solved = _asked(fit, passages(fit, chunks), solve)
        flaws += more
    elif chunks:
        flaws += _by_words(fit, chunks)
    flaws.sort(key=lambda flaw: (flaw.leaf, flaw.item, flaw.level, flaw.reason))
    return Validation(
        items=len(items),
        sound=len({item.id for item in items} - {flaw.item for flaw in flaws}),
        flaws=tuple(flaws),
        reasons=dict(sorted(Counter(flaw.reason for flaw in flaws).items())),
        dropped=dict(sorted((dropped or {}).items())),
        positions=gold_positions(items),
        solved=solved,
        how="a model was asked with the document and without" if solve else "words were compared, no model was asked",
    )


def gold_positions(items: Sequence[Item]) -> tuple[Positions, ...]:
    """Per leaf, at which position the right option stands.

    ``skewed``: even shares would put so many at one position less than once in a thousand leaves (binomial tail,
    times the number of positions).
    """
    by_leaf: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.kind == "mcq" and item.gold in item.options:
            by_leaf[item.leaf].append(item)
    found = []
    for leaf, own in sorted(by_leaf.items()):
        size = max(len(item.options) for item in own)
        counts = Counter(item.options.index(item.gold) for item in own)
        even = math.fsum(1 / len(item.options) for item in own) / len(own)
        most, n = max(counts.values()), len(own)
        tail = math.fsum(math.comb(n, k) * even**k * (1 - even) ** (n - k) for k in range(most, n + 1))
        listed = tuple(counts[place] for place in range(size))
        found.append(Positions(leaf=leaf, counts=listed, skewed=size * tail < CHANCE))
    return tuple(found)


def _forms(items: Sequence[Item]) -> list[Flaw]:
    """What is wrong with an item by itself."""
    flaws = []
    for item in items:
        if not item.question.strip():
            flaws.append(_flaw(item, EMPTY))
        if not item.gold.strip() and not item.unanswerable:
            flaws.append(_flaw(item, NO_GOLD))
        if item.kind == "mcq":
            flaws += _options(item)
    return flaws


def _options(item: Item) -> list[Flaw]:
    said = [" ".join(option.split()).casefold() for option in item.options]
    if len(said) < 2:
        return [_flaw(item, TOO_FEW)]
    flaws = [] if all(said) else [_flaw(item, EMPTY_OPTION)]
    if item.gold not in item.options:
        flaws.append(_flaw(item, NOT_AMONG, item.gold))
    again = [text for text, count in Counter(said).items() if count > 1 and text]
    if again:
        flaws.append(_flaw(item, SAME_OPTIONS, again[0]))
    spaced = [f" {' '.join(words(text))} " for text in said]
    within = [
        (inner, outer) for inner in spaced for outer in spaced if inner.strip() and inner != outer and inner in outer
    ]
    if within:
        flaws.append(_flaw(item, CONTAINED, f"{within[0][0].strip()} | {within[0][1].strip()}"))
    return flaws


def _duplicates(items: Sequence[Item]) -> list[Flaw]:
    """The same question again: the first by id stays. A question with another context is another question."""
    first: dict[tuple[str, str], str] = {}
    flaws = []
    for item in sorted(items, key=lambda item: item.id):
        if not item.question.strip():
            continue
        key = (same_question(item.question), same_question(item.context or ""))
        keeper = first.setdefault(key, item.id)
        if keeper != item.id:
            flaws.append(_flaw(item, DUPLICATE, keeper))
    return flaws


def _overlap(items: Sequence[Item], trained: Sequence[str]) -> list[Flaw]:
    """Questions that are training rows, word for word or nearly (Jaccard similarity of word threes)."""
    exact = {same_question(text): text for text in trained}
    by_three: dict[tuple[str, ...], list[int]] = defaultdict(list)
    threes = [_threes(text) for text in trained]
    for place, found in enumerate(threes):
        for three in found:
            by_three[three].append(place)
    flaws = []
    for item in items:
        if same_question(item.question) in exact and item.question.strip():
            flaws.append(_flaw(item, TRAINED, exact[same_question(item.question)]))
            continue
        own = _threes(item.question)
        shared: Counter[int] = Counter(place for three in own for place in by_three.get(three, ()))
        for place, count in shared.most_common(1):
            similarity = count / len(own | threes[place])
            if similarity >= NEAR:
                flaws.append(_flaw(item, NEAR_TRAINED, f"{similarity:.2f} alike: {trained[place]}"))
    return flaws


def _threes(text: str) -> frozenset[tuple[str, ...]]:
    found = words(text)
    return frozenset(zip(found, found[1:], found[2:], strict=False)) or frozenset({tuple(found)})


def _by_words(items: Sequence[Item], chunks: Sequence[Chunk]) -> list[Flaw]:
    """The answer's words in one passage of the leaf, and not in the question's wording alone."""
    said: dict[str, list[frozenset[str]]] = defaultdict(list)
    for chunk in chunks:
        said[chunk.leaf].append(frozenset(words(chunk.text)))
    flaws = []
    for item in items:
        if item.unanswerable:
            continue
        own = [*said.get(item.leaf, ()), *([frozenset(words(item.context))] if item.context else ())]
        answer = content_words(item.gold) or frozenset(words(item.gold))
        if not own and kind_of(item.leaf) == "knowledge":
            flaws.append(_flaw(item, NO_PASSAGE))
        elif own and answer and max(len(answer & passage) for passage in own) < SUPPORT * len(answer):
            flaws.append(_flaw(item, UNSUPPORTED, item.gold))
        # A question that shares no word with any option ties all of them, and earns an even share.
        if item.kind == "mcq" and (choices_only([item])[item.leaf] or 0.0) > max(0.5, 1 / len(item.options)):
            flaws.append(_flaw(item, GUESSABLE, item.gold))
    return flaws


def _asked(items: Sequence[Item], read: Mapping[str, str], solve: Solve) -> tuple[list[Flaw], dict[str, float | None]]:
    """What a model's answers with and without the document say of the items."""
    asked = [item for item in items if not item.unanswerable]
    held = [item for item in asked if item.id in read]
    with_it = dict(zip((i.id for i in held), solve([(item, read[item.id]) for item in held]), strict=True))
    without = dict(zip((i.id for i in asked), solve([(item, None) for item in asked]), strict=True))
    lacking = [item for item in asked if item.id not in read and not item.context]
    flaws = [_flaw(item, NO_PASSAGE) for item in lacking if kind_of(item.leaf) == "knowledge"]
    flaws += [_flaw(item, UNANSWERED, item.gold) for item in held if with_it[item.id] is False]
    flaws += [_flaw(item, KNOWN, item.gold) for item in asked if without[item.id] is True]
    return flaws, {"with": _share(list(with_it.values())), "without": _share(list(without.values()))}


def _share(values: Sequence[bool | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None


def _flaw(item: Item, reason: str, detail: str = "") -> Flaw:
    level: Level = "error" if reason in ERRORS else "warning"
    return Flaw(item=item.id, leaf=item.leaf, level=level, reason=reason, question=item.question, detail=detail)

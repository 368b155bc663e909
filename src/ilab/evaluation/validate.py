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
from ilab.evaluation.prompts import same_question
from ilab.evaluation.statistics import wilson

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
    passages: Mapping[str, str] | None = None,
    solve: Solve | None = None,
    dropped: Mapping[str, int] | None = None,
) -> Validation:
    """Look at ``items``. ``trained`` are the questions of training rows, ``passages`` item id to its document's text.

    Without chunks and passages nothing is said about documents, without ``solve`` words are compared instead.
    """
    flaws = [*_forms(items), *_duplicates(items), *_overlap(items, trained)]
    broken = {flaw.item for flaw in flaws if flaw.level == "error"}
    fit = [item for item in items if item.id not in broken]
    known = dict(passages or {}) or best_passages(fit, chunks)
    solved: dict[str, float | None] = {}
    if solve is not None:
        more, solved = _asked(fit, known, solve)
        flaws += more
    elif known:
        flaws += _by_words(fit, known)
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

    ``skewed``: the 99.9 % interval (Wilson) of the most frequent position's share lies above an even share.
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
        low = wilson(max(counts.values()), len(own), 0.999).low or 0.0
        listed = tuple(counts[place] for place in range(size))
        found.append(Positions(leaf=leaf, counts=listed, skewed=low > even))
    return tuple(found)


def best_passages(items: Sequence[Item], chunks: Sequence[Chunk]) -> dict[str, str]:
    """Item id to its passage: the chunk that its cluster names, else the leaf's chunk with most words in common."""
    by_leaf: dict[str, list[tuple[Chunk, frozenset[str]]]] = defaultdict(list)
    named = {}
    for chunk in chunks:
        by_leaf[chunk.leaf].append((chunk, content_words(chunk.text)))
        named[f"{chunk.leaf}#{chunk.id}"] = chunk.text
    found = {}
    for item in items:
        own = by_leaf.get(item.leaf, [])
        if item.cluster in named:
            found[item.id] = named[item.cluster]
        elif own:
            wanted = content_words(f"{item.question} {item.gold}")
            found[item.id] = max(own, key=lambda one: (len(wanted & one[1]), one[0].id))[0].text
    return found


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


def _by_words(items: Sequence[Item], passages: Mapping[str, str]) -> list[Flaw]:
    """The answer's words in the passage, and not in the question's wording alone."""
    flaws = []
    for item in items:
        if item.unanswerable:
            continue
        passage = passages.get(item.id)
        answer = content_words(item.gold) or frozenset(words(item.gold))
        if passage is None and not item.context:
            flaws.append(_flaw(item, NO_PASSAGE))
        elif answer and len(answer & frozenset(words(f"{passage or ''} {item.context or ''}"))) < SUPPORT * len(answer):
            flaws.append(_flaw(item, UNSUPPORTED, item.gold))
        # A question that shares no word with any option ties all of them, and earns an even share.
        if item.kind == "mcq" and (choices_only([item])[item.leaf] or 0.0) > max(0.5, 1 / len(item.options)):
            flaws.append(_flaw(item, GUESSABLE, item.gold))
    return flaws


def _asked(
    items: Sequence[Item], passages: Mapping[str, str], solve: Solve
) -> tuple[list[Flaw], dict[str, float | None]]:
    """What a model's answers with and without the document say of the items."""
    asked = [item for item in items if not item.unanswerable]
    held = [item for item in asked if item.id in passages]
    with_it = dict(zip((i.id for i in held), solve([(item, passages[item.id]) for item in held]), strict=True))
    without = dict(zip((i.id for i in asked), solve([(item, None) for item in asked]), strict=True))
    flaws = [_flaw(item, NO_PASSAGE) for item in asked if item.id not in passages and not item.context]
    flaws += [_flaw(item, UNANSWERED, item.gold) for item in held if with_it[item.id] is False]
    flaws += [_flaw(item, KNOWN, item.gold) for item in asked if without[item.id] is True]
    return flaws, {"with": _share(list(with_it.values())), "without": _share(list(without.values()))}


def _share(values: Sequence[bool | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None


def _flaw(item: Item, reason: str, detail: str = "") -> Flaw:
    level: Level = "error" if reason in ERRORS else "warning"
    return Flaw(item=item.id, leaf=item.leaf, level=level, reason=reason, question=item.question, detail=detail)

"""Rows of the ``eval`` flow as held-out multiple-choice items.

A row brings a question, the right ``answer`` and three wrong ones; the flow's judges have looked at their content.
Here is looked at what needs no judge: that the four options are told apart, that the question does not give the answer
away and is new. The right option is known by its text. Options are in an order drawn from the row's text and the seed;
evaluation permutes them again. Dev or test is decided by the hash of the item's id, as for all items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations

from ilab.data import Item, Leaf, Rejected, Split, digest_text, seed_from, short
from ilab.sdg.block import Row
from ilab.sdg.engine import rejected
from ilab.sdg.text import normal, words

BLOCK = "items"  # names the refusals of this module
ORIGIN = "eval"
WRONG = ("wrong_1", "wrong_2", "wrong_3")
SIMILAR = 0.8  # Jaccard similarity of word sets from which a question is a seed example's


def items_of(rows: Iterable[Row], leaf: Leaf, seed: int) -> tuple[tuple[Item, ...], tuple[Rejected, ...]]:
    """The items of ``leaf`` in the rows' order, and the rows that make none, each with the reason.

    A row has the columns ``question``, ``answer`` and those of ``WRONG``. Rows of other leaves are passed over. Of
    several rows with the same question the first by id counts, whatever their order.
    """
    own = [row for row in rows if row.leaf == leaf.path]
    asked = [frozenset(words(pair.question)) for example in leaf.seeds for pair in example.pairs]
    written = [frozenset(words(item.question)) for item in leaf.items]
    first: dict[str, str] = {}
    faults: dict[str, str | None] = {}
    for row in sorted(own, key=lambda row: row.id):
        faults[row.id] = _fault(row, asked) or _written(row, written)
        keeper = first.setdefault(normal(row.columns["question"]), row.id) if faults[row.id] is None else row.id
        if keeper != row.id:
            faults[row.id] = f"duplicate: the same question as {keeper}"
    refused = [(row, fault) for row in own if (fault := faults[row.id]) is not None]
    items = tuple(_item(row, leaf, seed) for row in own if faults[row.id] is None)
    return items, tuple(rejected(row, BLOCK, fault) for row, fault in refused)


def _fault(row: Row, asked: Sequence[frozenset[str]]) -> str | None:
    """Why ``row`` makes no item; ``asked`` are the word sets of the leaf's own questions."""
    question = row.columns["question"]
    options = [row.columns["answer"], *(row.columns[name] for name in WRONG)]
    said = [normal(option) for option in options]
    if not all(said) or not words(question):
        return "incomplete: the question or an option is empty"
    if len(set(said)) < len(said):
        return f"options are the same: {' | '.join(options)}"
    for inner, outer in permutations(said, 2):
        if f" {inner} " in f" {outer} ":
            return f"an option is part of another: {inner!r} of {outer!r}"
    if f" {said[0]} " in f" {normal(question)} ":
        return f"the question gives the answer away: {options[0]}"
    if _near(question, asked):
        return f"nearly a seed example's question: {question}"
    return None


def _written(row: Row, written: Sequence[frozenset[str]]) -> str | None:
    """Whether ``row`` asks what a person's item asks; ``written`` are their word sets."""
    question = row.columns["question"]
    if _near(question, written):
        return f"nearly the same question as a person's: {question}"
    return None


def _near(question: str, others: Sequence[frozenset[str]]) -> bool:
    mine = frozenset(words(question))
    return any(len(mine & other) >= SIMILAR * len(mine | other) for other in others)


def _item(row: Row, leaf: Leaf, seed: int) -> Item:
    question, gold = row.columns["question"], row.columns["answer"]
    wrong = sorted(row.columns[name] for name in WRONG)
    name = f"{leaf.path}/eval/{short(digest_text(chr(0).join((question, gold, *wrong))))}"
    options = sorted([gold, *wrong], key=lambda text: seed_from(f"{name}/{text}", seed))
    split: Split = "dev" if int(digest_text(name), 16) % 3 == 0 else "test"
    return Item(
        id=name,
        leaf=leaf.path,
        split=split,
        kind="mcq",
        question=question,
        options=tuple(options),
        gold=gold,
        cluster=f"{leaf.path}#{row.trace.chunk}" if row.trace.chunk else name,
        origin=ORIGIN,
    )

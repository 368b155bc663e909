"""Held-out items: people's own, and questions made by rule for leaves where people wrote none.

People's items stand in ``eval.yaml`` beside the ``qna.yaml``. Without one a leaf still gets questions: of every fact
that the rules word in several ways, one wording is kept apart (it never trains, see ``decontaminate``), and answers
of the same rule elsewhere in the leaf become the other options. For skills, some recombinations are kept apart. Such
items are worth less than people's, and their ``origin`` says ``rule``. Dev or test is decided by the hash of the id.

Items of a teacher (:mod:`ilab.sdg.item_flow`) stand beside people's, in place of those by rule. They come from chunks
that are set apart where a leaf has enough. Flows that train the document's own text make nothing else of these, so that
an item asks for what the document says, and not for what a sample said. Without that text nobody could know the answer,
so other flows make samples of all chunks.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ilab.data import Chunk, Item, Leaf, Rejected, Split, digest_text, seed_from, short
from ilab.sdg.eval_items import ORIGIN
from ilab.sdg.extractive import Pair, extract
from ilab.sdg.recombine import Seed, recombine

OPTIONS = 4
WORDINGS = 3  # a fact with fewer wordings keeps them all for training
HELD_SKILLS = 40  # recombinations of a skill leaf that are kept apart
ENOUGH = 10  # chunks of a leaf, of which some can be spared
PART = 5  # one of so many chunks is set apart


def hold_out(
    leaves: Sequence[Leaf], chunks: Sequence[Chunk], per_leaf: int, seed: int, made: Sequence[Item] = ()
) -> tuple[list[Item], list[Rejected]]:
    """Items of all leaves, sorted by leaf, at most ``per_leaf`` of each split (0: all), and what was dropped.

    ``made`` are a teacher's, beside people's, which come first where there are too many.
    """
    items: list[Item] = []
    dropped: list[Rejected] = []
    by_leaf: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        by_leaf[chunk.leaf].append(chunk)
    for leaf in sorted(leaves, key=lambda leaf: leaf.path):
        own = [*leaf.items, *(item for item in made if item.leaf == leaf.path)] or (
            _from_chunks(leaf, by_leaf[leaf.path], seed) if leaf.kind == "knowledge" else _from_seeds(leaf, seed)
        )
        for split in ("dev", "test"):
            ranked = sorted(
                (item for item in own if item.split == split),
                key=lambda item: (item.origin != "person", _rank(item.id, seed)),
            )
            kept = {item.id for item in (ranked[:per_leaf] if per_leaf else ranked)}
            for item in own:
                if item.split == split:
                    (items.append(item) if item.id in kept else dropped.append(_over(item, per_leaf)))
    return items, dropped


def set_apart(leaves: Sequence[Leaf], chunks: Sequence[Chunk], seed: int) -> list[Chunk]:
    """The chunks that a teacher's items are made of: a fifth of a knowledge leaf's, or all where there are few.

    Which they are follows from their text and the seed.
    """
    by_leaf: dict[str, list[Chunk]] = {leaf.path: [] for leaf in leaves if leaf.kind == "knowledge"}
    for chunk in chunks:
        if chunk.leaf in by_leaf:
            by_leaf[chunk.leaf].append(chunk)
    chosen: list[Chunk] = []
    for own in by_leaf.values():
        few = len(own) < ENOUGH
        ranked = own if few else sorted(own, key=lambda chunk: _rank(chunk.text, seed))[: len(own) // PART]
        kept = {chunk.id for chunk in ranked}
        chosen += [chunk for chunk in own if chunk.id in kept]
    return chosen


def kept_apart(chunks: Iterable[Chunk], items: Iterable[Item]) -> frozenset[str]:
    """The chunks, as ``leaf#id``, of which no sample but their own text is made: those that a teacher's items stand
    on, unless they are most of the leaf's.
    """
    asked = {item.cluster for item in items if item.origin == ORIGIN}
    counted: dict[str, list[str]] = defaultdict(list)
    for chunk in chunks:
        counted[chunk.leaf].append(f"{chunk.leaf}#{chunk.id}")
    return frozenset(
        name
        for names in counted.values()
        if 2 * sum(name in asked for name in names) <= len(names)
        for name in names
        if name in asked
    )


def _from_chunks(leaf: Leaf, chunks: Iterable[Chunk], seed: int) -> list[Item]:
    """One wording of each fact that has several, with other answers of the same rule as options."""
    facts: dict[tuple[str, str, str], list[Pair]] = defaultdict(list)
    for chunk in chunks:
        for pair in extract(chunk.text, chunk.heading):
            facts[chunk.id, pair.evidence, pair.answer].append(pair)
    held = {
        fact: min(pairs, key=lambda pair: _rank(pair.question, seed))
        for fact, pairs in facts.items()
        if len({pair.question for pair in pairs}) >= WORDINGS
    }
    answers: dict[str, list[str]] = defaultdict(list)
    for pair in held.values():
        if pair.answer not in answers[pair.rule]:
            answers[pair.rule].append(pair.answer)
    items = []
    for (chunk_id, _, gold), pair in held.items():
        others = [answer for answer in answers[pair.rule] if answer.lower() != gold.lower()]
        if len(others) < OPTIONS - 1:
            continue
        others.sort(key=lambda answer: (abs(len(answer) - len(gold)) // 8, _rank(f"{pair.question}\0{answer}", seed)))
        options = sorted([gold, *others[: OPTIONS - 1]], key=lambda text: _rank(f"{pair.question}/{text}", seed))
        items.append(_item(leaf, pair.question, None, tuple(options), gold, f"{leaf.path}#{chunk_id}"))
    return items


def _from_seeds(leaf: Leaf, seed: int) -> list[Item]:
    """Recombinations of a skill leaf's seed examples that will not train."""
    seeds = [Seed(pair.question, example.context, pair.answer) for example in leaf.seeds for pair in example.pairs]
    own = {(one.question, one.context) for one in seeds}
    combinations = recombine(seeds, HELD_SKILLS, seed_from(f"{leaf.path}/held-out", seed))
    return [
        _item(leaf, one.question, one.context, (), one.answer, None)
        for one in combinations
        if (one.question, one.context) not in own
    ]


def _item(
    leaf: Leaf, question: str, context: str | None, options: tuple[str, ...], gold: str, cluster: str | None
) -> Item:
    name = f"{leaf.path}/eval/{short(digest_text(chr(0).join((question, context or '', *options, gold))))}"
    split: Split = "dev" if int(digest_text(name), 16) % 3 == 0 else "test"
    return Item(
        id=name,
        leaf=leaf.path,
        split=split,
        kind="mcq" if options else "exact",
        question=question,
        context=context,
        options=options,
        gold=gold,
        cluster=cluster or name,
        origin="rule",
    )


def _rank(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()


def _over(item: Item, limit: int) -> Rejected:
    reason = f"over eval_num_samples: {limit} items of the {item.split} split are used per leaf"
    return Rejected(
        id=item.id, leaf=item.leaf, block="eval_num_samples", reason=reason, row={"question": item.question}
    )

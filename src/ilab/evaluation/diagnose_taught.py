"""What could have taught an answer, and how texts are held against each other: does one state, agree, ask the same?

Words are compared whole where an answer is looked for (a fact is stated or not), and by their beginnings where a
question is (people word them differently).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ilab.data import Chunk, Leaf, QuestionAnswer, Rejected, Sample
from ilab.evaluation.answers import content_words, words
from ilab.evaluation.diagnose_index import REMEMBERED, WordIndex, alike, by_text, stems

NEAR = 30  # samples looked at for one question
STATED = 0.8  # share of an answer's words that a text must have to state it
ASKED = 0.35  # share of a question's weight that a sample must have to be about it ...
ASKED_OF_PASSAGE = 0.15  # share of a question's weight that a passage must have, where no more than ...
TELLING = 2  # ... so many passages have the answer's rarest word
SAME = 0.7  # overlap (Dice) of two questions that ask the same ...
EXTRA = 0.15  # ... of which at least one has no more than this share of words of its own


@dataclass(frozen=True)
class Taught:
    """Everything that could have taught an answer: *all* samples and refused rows, the passages, the leaves."""

    samples: Sequence[Sample]
    rejected: Sequence[Rejected] = ()
    chunks: Sequence[Chunk] = ()
    leaves: Sequence[Leaf] = ()

    @cached_property
    def index(self) -> WordIndex:
        """Over question, context and answer of the samples."""
        return WordIndex([said(sample) for sample in self.samples])

    @cached_property
    def by_id(self) -> Mapping[str, Sample]:
        return {sample.id: sample for sample in self.samples}

    @cached_property
    def passages(self) -> WordIndex:
        return WordIndex([" ".join((*chunk.heading, chunk.text)) for chunk in self.chunks])

    @cached_property
    def questions(self) -> Mapping[str, list[int]]:
        """Samples by their question with its context, but for case and punctuation."""
        return by_text(sample.question for sample in self.samples)

    @cached_property
    def chunk_of(self) -> Mapping[tuple[str, str | None], Chunk]:
        return {(chunk.leaf, chunk.id): chunk for chunk in self.chunks}

    @cached_property
    def samples_by_chunk(self) -> Mapping[tuple[str, str | None], list[Sample]]:
        found: dict[tuple[str, str | None], list[Sample]] = {}
        for sample in self.samples:
            found.setdefault((sample.leaf, sample.origin.chunk), []).append(sample)
            found.setdefault((sample.leaf, ""), []).append(sample)  # "" stands for the whole leaf
        return found

    @cached_property
    def rejected_by_chunk(self) -> Mapping[tuple[str, str | None], list[Rejected]]:
        found: dict[tuple[str, str | None], list[Rejected]] = {}
        for row in self.rejected:
            named = re.match(r"#([^/]+)", row.id.removeprefix(row.leaf))
            found.setdefault((row.leaf, named[1] if named else None), []).append(row)
            found.setdefault((row.leaf, ""), []).append(row)
        return found

    def passage(self, sample: Sample) -> Chunk | None:
        return self.chunk_of.get((sample.leaf, sample.origin.chunk))

    def near(self, question: str, answer: str = "") -> list[Sample]:
        """The samples that share most of the words, equal questions first."""
        equal = self.questions.get(alike(question), [])
        ranked = [hit.number for hit in self.index.nearest(f"{question} {answer}", NEAR)]
        return [self.samples[number] for number in dict.fromkeys([*equal[:NEAR], *ranked])]

    def chunk_for(self, question: str, answer: str, leaf: str = "") -> Chunk | None:
        """The passage (of ``leaf``) that states ``answer`` and has most of the question's words."""
        for hit in self.passages.nearest(f"{question} {answer}", NEAR):
            chunk = self.chunks[hit.number]
            text = self.passages.texts[hit.number]
            if leaf in ("", chunk.leaf) and states(text, answer):
                telling = self.passages.rarest(stems(answer)) <= TELLING
                asked = self.passages.share(stems(question), stems(text))
                return chunk if asked >= (ASKED_OF_PASSAGE if telling else ASKED) else None
        return None

    @cached_property
    def _pairs(self) -> Mapping[str, tuple[Leaf, list[QuestionAnswer], WordIndex]]:
        """By leaf: its seed pairs and a search over their questions."""
        found = {}
        for leaf in self.leaves:
            pairs = [pair for seed in leaf.seeds for pair in seed.pairs]
            found[leaf.path] = (leaf, pairs, WordIndex([pair.question for pair in pairs]))
        return found

    @cached_property
    def _seeds(self) -> frozenset[tuple[str, str, str]]:
        """(leaf, question with or without its context, answer) of every seed example."""
        return frozenset(
            (leaf.path, alike(f"{pair.question} {context}"), alike(pair.answer))
            for leaf in self.leaves
            for seed in leaf.seeds
            for pair in seed.pairs
            for context in ("", seed.context or "")
        )

    def place(self, leaf: str, question: str = "") -> str | None:
        """``file:line:column`` of the seed example nearest to ``question``, or of the leaf."""
        if leaf not in self._pairs:
            return None
        known, pairs, index = self._pairs[leaf]
        near = [hit for hit in index.nearest(question, 1) if hit.share >= SAME] if question else []
        return str(pairs[near[0].number].place if near else known.place)

    def is_seed(self, sample: Sample) -> bool:
        """Whether a person wrote the pair: it is a seed example of its leaf."""
        return (sample.leaf, alike(sample.question), alike(sample.answer)) in self._seeds


def said(sample: Sample) -> str:
    """All that a sample says."""
    return "\n".join(message.content for message in sample.messages)


@lru_cache(REMEMBERED)
def all_words(text: str) -> frozenset[str]:
    return frozenset(words(text))


@lru_cache(REMEMBERED)
def facts_of(answer: str) -> frozenset[str]:
    """The words of an answer that can carry a fact; all of one that has no others ("under it")."""
    return content_words(answer) or frozenset(words(answer))


def states(text: str, answer: str) -> bool:
    """Whether ``text`` has (nearly) all words of ``answer`` that can carry a fact, and every figure of it."""
    wanted, there = facts_of(answer), all_words(text)
    return bool(wanted) and figures(answer) <= there and len(wanted & there) >= STATED * len(wanted)


def agrees(answer: str, gold: str) -> bool:
    """Whether one of two answers states the other: a longer or a shorter answer is not another one."""
    return alike(answer) == alike(gold) or states(answer, gold) or states(gold, answer)


@lru_cache(REMEMBERED)
def figures(text: str) -> frozenset[str]:
    """The words of ``text`` that have a digit."""
    return frozenset(word for word in words(text) if any(sign.isdigit() for sign in word))


def asks_same(index: WordIndex, one: str, other: str) -> bool:
    """Whether two questions are (nearly) one: most of their weight is shared, and one adds next to nothing.

    Two questions of which each has something of its own (*when ready*, *when heating*) are two questions.
    """
    if alike(one) == alike(other):
        return True
    left, right = stems(one), stems(other)
    shared, of_left, of_right = (index.total(part) for part in (left & right, left, right))
    if not shared:
        return False
    extra = min(1 - shared / of_left, 1 - shared / of_right)
    return 2 * shared / (of_left + of_right) >= SAME and extra <= EXTRA and figures(one) == figures(other)


def supported(answer: str, passage: str) -> bool:
    """Whether a passage has every figure and at least half of the words of an answer."""
    wanted, there = facts_of(answer), all_words(passage)
    return figures(answer) <= there and 2 * len(wanted & there) >= len(wanted)

"""Questions asked among passages, some of which have nothing to do with them (RAFT, arXiv 2403.10131).

    Document:                    a model that is to answer from what a search has found must learn to pass over what
    <distractor>                 does not matter, and to answer from what it knows where the search has missed
    Document:
    <the question's own passage>
    …
    <question>

The own passage is among them with probability ``oracle``; else one more distractor takes its place. Distractors are
other passages of the same leaf, and only where it has too few those of other leaves, so that a leaf more changes
nothing. Every draw derives from the row's id.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from ilab.data import Chunk, Message, Sample, TrainingRow, seed_from


class Passages:
    """The chunks that passages are drawn from, each text once."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        ordered = sorted(chunks, key=lambda chunk: (chunk.id, chunk.leaf))
        self._own = {(chunk.leaf, chunk.id): chunk for chunk in ordered}
        self._all = list({chunk.id: chunk for chunk in reversed(ordered)}.values())[::-1]
        self._of_leaf: dict[str, list[Chunk]] = {}
        for chunk in self._own.values():
            self._of_leaf.setdefault(chunk.leaf, []).append(chunk)

    def own(self, sample: Sample) -> Chunk | None:
        """The passage that a sample was made from."""
        return self._own.get((sample.leaf, sample.origin.chunk or ""))

    def others(self, own: Chunk, sample: Sample, count: int, draw: random.Random) -> list[str]:
        """At most ``count`` texts that are not the sample's passage and do not hold its evidence."""
        evidence = sample.origin.evidence
        taken: list[str] = []
        for pool, near in ((self._of_leaf[own.leaf], True), (self._all, False)):
            # Nothing is drawn from all leaves while the own leaf has enough: further draws would be others then.
            for chunk in _shuffled(pool, draw) if len(taken) < count else ():
                fits = chunk.id != own.id and not (evidence and evidence in chunk.text)
                if fits and (near or (own.leaf, chunk.id) not in self._own):
                    taken.append(chunk.text)
                if len(taken) == count:
                    break
        return taken


def _shuffled(pool: Sequence[Chunk], draw: random.Random) -> Iterator[Chunk]:
    """``pool`` in drawn order, each place drawn when it is asked for (Fisher and Yates)."""
    moved: dict[int, int] = {}
    for index in range(len(pool)):
        place = draw.randrange(index, len(pool))
        yield pool[moved.get(place, place)]
        moved[place] = moved.get(index, index)


def can_be_asked(sample: Sample, passages: Passages) -> bool:
    """Whether a sample is one question to a passage that its text does not hold already."""
    own = passages.own(sample)
    roles = [message.role for message in sample.messages if message.role != "system"]
    return (
        own is not None
        and sample.train_on == "assistant"
        and roles == ["user", "assistant"]
        and not sample.context
        and own.text not in sample.question
    )


def asked_among(sample: Sample, passages: Passages, identity: str, choice: tuple[int, float], seed: int) -> TrainingRow:
    """The row ``identity`` of a sample that can be asked so. ``choice``: how many distractors, chance of the own."""
    own = passages.own(sample)
    if own is None:
        raise ValueError(f"{sample.id} was made from no passage")
    distractors, oracle = choice
    draw = random.Random(seed_from(identity, seed))
    shown = draw.random() < oracle
    texts = passages.others(own, sample, distractors + (not shown), draw)
    if shown or not texts:  # the only passage there is
        texts.append(own.text)
    draw.shuffle(texts)
    asked = "\n\n".join([*(f"Document:\n{text}" for text in texts), sample.question])
    messages = tuple(
        Message(role="user", content=asked) if message.role == "user" else message for message in sample.messages
    )
    return TrainingRow(id=identity, leaf=sample.leaf, source="raft", sample=sample.id, messages=messages)

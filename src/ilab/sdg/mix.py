"""Mixing: which samples one training phase sees, how often, and what of the earlier phase comes back.

    knowledge   question-answer pairs of knowledge leaves
    document    their documents' own text (``train_on`` is ``all``)
    skill       samples of skill leaves
    raft        knowledge questions among passages (see ``raft``), off unless ``distractors`` are asked for
    precomputed datasets that a recipe names (see ``recipe``)
    replay      rows of an earlier phase's dataset, so that it is not forgotten

How often a leaf is seen is a weight: 1.5 is every sample once and half of them twice. No sample comes twice while
another of its leaf has not come once. Every choice derives from ids and the seed, so another leaf more changes no
leaf's rows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from ilab.data import Chunk, Kind, Message, Sample, TrainingRow, seed_from
from ilab.sdg.precomputed import count_of
from ilab.sdg.raft import Passages, asked_among, can_be_asked
from ilab.sdg.text import words

Source = Literal["knowledge", "document", "skill"]
T = TypeVar("T", Sample, TrainingRow)


class Mixture(BaseModel):
    """What goes into a dataset of the taxonomy's own samples.

    ``sampling_size`` is how much of each leaf's questions is taken (a float is a share, an int a count),
    ``max_per_leaf`` the most of them; the documents' own text is not cut. ``replay`` is the share of the *finished*
    dataset that comes from the earlier one (a third: one row replayed for two new ones). ``weights`` hold for each leaf
    and source, replay included. A sample has up to ``variants`` rows: the first as it is, the others with its question
    disturbed (each word with probability ``noise``; see :func:`disturb`). ``distractors`` is the number of passages
    beside a knowledge question's own, which is among them with probability ``oracle``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[Source, ...] = ("knowledge", "document", "skill")
    replay: float = Field(0.0, ge=0.0, lt=1.0)
    weights: dict[str, float] = {}
    variants: int = Field(1, ge=1)
    noise: float = Field(0.0, ge=0.0, lt=1.0)
    sampling_size: StrictInt | StrictFloat = Field(1.0, ge=0)
    max_per_leaf: int | None = Field(None, ge=1)
    distractors: int = Field(0, ge=0)
    oracle: float = Field(0.8, ge=0.0, le=1.0)

    def wanted(self, leaf: str, found: int) -> int:
        """How many of a leaf's ``found`` questions are taken."""
        wanted = round(self.weights.get(leaf, 1.0) * count_of(self.sampling_size, found))
        return wanted if self.max_per_leaf is None else min(wanted, self.max_per_leaf)


def by_source(samples: Sequence[Sample], kinds: Mapping[str, Kind]) -> dict[Source, list[Sample]]:
    """``samples`` sorted into sources; ``kinds`` maps a leaf's path to its kind."""
    sorted_: dict[Source, list[Sample]] = {"knowledge": [], "document": [], "skill": []}
    for sample in samples:
        if sample.train_on == "all":
            sorted_["document"].append(sample)
        else:
            sorted_["knowledge" if kinds[sample.leaf] == "knowledge" else "skill"].append(sample)
    return sorted_


def mix(
    samples: Mapping[Source, Sequence[Sample]],
    mixture: Mixture,
    seed: int,
    earlier: Sequence[TrainingRow] = (),
    chunks: Sequence[Chunk] = (),
    more: int = 0,
) -> tuple[list[TrainingRow], dict[str, Any]]:
    """Rows of unique ids, by source and leaf in the order given (the trainer shuffles), and what came from
    where.

    ``chunks`` are the passages for questions with distractors. ``more`` rows, which a recipe adds, count as new where
    the share of the replayed ones is measured.
    """
    rows: list[TrainingRow] = []
    told: dict[str, Any] = {"sources": {}}
    for source in mixture.sources:
        told["sources"][source] = {}
        for leaf, found in _by_leaf(samples.get(source, ())).items():
            made, about = _of_leaf(leaf, found, source, mixture, seed)
            rows += made
            told["sources"][source][leaf] = about
    if mixture.distractors:
        among, told["raft"] = _among_passages(samples.get("knowledge", ()), Passages(chunks), mixture, seed)
        rows += among
    replayed = _replay(earlier, mixture, len(rows) + more, seed)
    told["replay"] = {"earlier": len(earlier), "rows": len(replayed), "share": mixture.replay}
    told["rows"] = len(rows) + more + len(replayed)
    return [*rows, *replayed], told


def repeated(told: Mapping[str, Any]) -> int:
    """How many rows of a mix stand there again because a count asked for more than there are."""
    return sum(about.get("repeated", 0) for source in told["sources"].values() for about in source.values())


def disturb(text: str, answer: str, noise: float, seed: int) -> str:
    """``text`` with each word, by chance ``noise``, either dropped or swapped with the next in its line.

    Word dropout keeps a small model from recalling an answer by one exact wording. Words that stand in ``answer``
    are neither dropped nor moved: an answer that copies from the question must stay right. Line breaks stay.
    """
    draw = random.Random(seed)
    fixed = set(words(answer))
    lines = []
    for line in text.split("\n"):
        tokens = re.findall(r"\S+", line)
        free = [not fixed & set(words(token)) for token in tokens]
        kept: list[str] = []
        index = 0
        while index < len(tokens):
            chance, drop = draw.random(), draw.random() < 0.5
            if free[index] and chance < noise and drop:
                index += 1
            elif free[index] and chance < noise and index + 1 < len(tokens) and free[index + 1]:
                kept += [tokens[index + 1], tokens[index]]
                index += 2
            else:
                kept.append(tokens[index])
                index += 1
        lines.append(" ".join(kept))
    disturbed = "\n".join(lines)
    return disturbed if disturbed.strip() else text


def _by_leaf(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    leaves: dict[str, list[Sample]] = {}
    for sample in samples:
        leaves.setdefault(sample.leaf, []).append(sample)
    return leaves


def _of_leaf(
    leaf: str, found: Sequence[Sample], source: Source, mixture: Mixture, seed: int
) -> tuple[list[TrainingRow], dict[str, Any]]:
    """One leaf's rows of one source: every sample equally often, what remains chosen by id."""
    weight = mixture.weights.get(leaf, 1.0)
    wanted = round(weight * len(found)) if source == "document" else mixture.wanted(leaf, len(found))
    rows = [
        row
        for sample, times in zip(found, _times(found, wanted, seed), strict=True)
        for row in _copies(sample, times, source, mixture, seed)
    ]
    about: dict[str, Any] = {"samples": len(found), "weight": weight, "rows": len(rows)}
    asked = len(found) if source == "document" else count_of(mixture.sampling_size, len(found))
    if min(asked, wanted) > len(found):
        about["repeated"] = min(asked, wanted) - len(found)
    return rows, about


def _times(found: Sequence[Sample], wanted: int, seed: int) -> list[int]:
    """How often each of ``found`` is taken, so that ``wanted`` are: none twice before all are taken once."""
    if not found:
        return []
    times, rest = divmod(wanted, len(found))
    once_more = {sample.id for sample in _choose(found, rest, seed)}
    return [times + (sample.id in once_more) for sample in found]


def _among_passages(
    knowledge: Sequence[Sample], passages: Passages, mixture: Mixture, seed: int
) -> tuple[list[TrainingRow], dict[str, Any]]:
    """Knowledge questions among passages, as many of each leaf as it has questions that stand alone."""
    rows: list[TrainingRow] = []
    told: dict[str, Any] = {}
    choice = (mixture.distractors, mixture.oracle)
    alone = [sample for sample in knowledge if can_be_asked(sample, passages)]
    for leaf, found in _by_leaf(alone).items():
        times = _times(found, mixture.wanted(leaf, len(found)), seed)
        for sample, count in zip(found, times, strict=True):
            for number in range(1, count + 1):
                identity = f"{sample.id}~raft{number if number > 1 else ''}"
                rows.append(asked_among(sample, passages, identity, choice, seed))
        told[leaf] = {"samples": len(found), "rows": sum(times)}
    return rows, told


def _copies(sample: Sample, times: int, source: Source, mixture: Mixture, seed: int) -> list[TrainingRow]:
    """The sample ``times`` times, each time with its variants. Variants that turn out equal are left out."""
    rows: list[TrainingRow] = []
    said: set[str] = set()
    for time in range(times):
        for variant in range(mixture.variants if sample.train_on == "assistant" else 1):
            number = time * mixture.variants + variant + 1
            identity = f"{sample.id}~{number}" if number > 1 else sample.id
            messages = sample.messages
            if number > 1 and mixture.noise and sample.train_on == "assistant":
                question = disturb(sample.question, sample.answer, mixture.noise, seed_from(identity, seed))
                messages = tuple(
                    Message(role="user", content=question) if message.role == "user" else message
                    for message in sample.messages
                )
            if variant and str(messages) in said:
                continue
            said.add(str(messages))
            rows.append(
                TrainingRow(
                    id=identity,
                    leaf=sample.leaf,
                    source=source,
                    sample=sample.id,
                    messages=messages,
                    train_on=sample.train_on,
                )
            )
    return rows


def _replay(earlier: Sequence[TrainingRow], mixture: Mixture, new: int, seed: int) -> list[TrainingRow]:
    """Earlier rows, so many that they are the mixture's share of the whole; all of them where there are fewer.

    Each leaf's part is its number of rows times its weight, so a leaf that is still weak comes back more often.
    """
    wanted = min(round(mixture.replay / (1 - mixture.replay) * new), len(earlier))
    leaves: dict[str, list[TrainingRow]] = {}
    for row in earlier:
        leaves.setdefault(row.leaf, []).append(row)
    shares = {leaf: len(rows) * mixture.weights.get(leaf, 1.0) for leaf, rows in leaves.items()}
    parts = _parts(wanted, shares, {leaf: len(rows) for leaf, rows in leaves.items()})
    chosen = [row for leaf, rows in leaves.items() for row in _choose(rows, parts[leaf], seed)]
    return [row.model_copy(update={"id": f"replay/{row.id}", "source": "replay"}) for row in chosen]


def _parts(wanted: int, shares: Mapping[str, float], most: Mapping[str, int]) -> dict[str, int]:
    """``wanted`` split in proportion to ``shares``, nobody above its ``most``; the others take what is left over."""
    parts = dict.fromkeys(shares, 0)
    while (left := wanted - sum(parts.values())) > 0:
        open_ = {leaf: share for leaf, share in shares.items() if parts[leaf] < most[leaf] and share > 0}
        total = sum(open_.values())
        if not open_:
            break
        given = {leaf: min(most[leaf] - parts[leaf], int(left * share / total)) for leaf, share in open_.items()}
        if not any(given.values()):  # less than one row each: the largest shares first, then by name
            given = dict.fromkeys(sorted(open_, key=lambda leaf: (-open_[leaf], leaf))[:left], 1)
        for leaf, count in given.items():
            parts[leaf] += count
    return parts


def _choose(found: Sequence[T], most: int | None, seed: int) -> list[T]:
    """At most ``most`` of ``found``, chosen by their ids, in the order given."""
    if most is None or len(found) <= most:
        return list(found)
    ranked = sorted(found, key=lambda entry: (seed_from(entry.id, seed), entry.id))
    kept = {entry.id for entry in ranked[:most]}
    return [entry for entry in found if entry.id in kept]

"""Mixing: which samples one training phase sees, how often, and what of the earlier phase comes back.

    knowledge   question-answer pairs of knowledge leaves
    document    their documents' own text (``train_on`` is ``all``)
    skill       samples of skill leaves
    replay      rows of an earlier phase's dataset, so that it is not forgotten

How often a leaf is seen is a weight: 1.5 is every sample once and half of them twice. Every choice derives from
ids and the seed, so another leaf more changes no leaf's rows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ilab.data import Kind, Message, Sample, TrainingRow, seed_from
from ilab.sdg.text import words

Source = Literal["knowledge", "document", "skill"]
T = TypeVar("T", Sample, TrainingRow)


class Recipe(BaseModel):
    """What goes into a dataset.

    ``replay`` is the share of the *finished* dataset that comes from the earlier one (a third: one row replayed
    for two new ones). ``weights`` hold for each leaf and source, replay included. A sample has up to ``variants`` rows:
    the first as it is, the others with its question disturbed (each word with probability ``noise``; see
    :func:`disturb`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[Source, ...] = ("knowledge", "document", "skill")
    replay: float = Field(0.0, ge=0.0, lt=1.0)
    weights: dict[str, float] = {}
    variants: int = Field(1, ge=1)
    noise: float = Field(0.0, ge=0.0, lt=1.0)


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
    samples: Mapping[Source, Sequence[Sample]], recipe: Recipe, seed: int, earlier: Sequence[TrainingRow] = ()
) -> tuple[list[TrainingRow], dict[str, Any]]:
    """Rows of unique ids, by source and leaf in the order given (the trainer shuffles), and what came from
    where.
    """
    rows: list[TrainingRow] = []
    told: dict[str, Any] = {"sources": {}}
    for source in recipe.sources:
        leaves: dict[str, list[Sample]] = {}
        for sample in samples.get(source, ()):
            leaves.setdefault(sample.leaf, []).append(sample)
        told["sources"][source] = {}
        for leaf, found in leaves.items():
            weight = recipe.weights.get(leaf, 1.0)
            made = _rows(found, round(weight * len(found)), source, recipe, seed)
            rows += made
            told["sources"][source][leaf] = {
                "samples": len(found),
                "weight": weight,
                "rows": len(made),
            }
    replayed = _replay(earlier, recipe, len(rows), seed)
    told["replay"] = {"earlier": len(earlier), "rows": len(replayed), "share": recipe.replay}
    told["rows"] = len(rows) + len(replayed)
    return [*rows, *replayed], told


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


def _rows(found: Sequence[Sample], wanted: int, source: Source, recipe: Recipe, seed: int) -> list[TrainingRow]:
    """``wanted`` samples' worth of rows: every sample equally often, what remains chosen by id."""
    if not found:
        return []
    times, rest = divmod(wanted, len(found))
    once_more = {sample.id for sample in _choose(found, rest, seed)}
    return [row for sample in found for row in _copies(sample, times + (sample.id in once_more), source, recipe, seed)]


def _copies(sample: Sample, times: int, source: Source, recipe: Recipe, seed: int) -> list[TrainingRow]:
    """The sample ``times`` times, each time with its variants. Variants that turn out equal are left out."""
    rows: list[TrainingRow] = []
    said: set[str] = set()
    for time in range(times):
        for variant in range(recipe.variants if sample.train_on == "assistant" else 1):
            number = time * recipe.variants + variant + 1
            identity = f"{sample.id}~{number}" if number > 1 else sample.id
            messages = sample.messages
            if number > 1 and recipe.noise and sample.train_on == "assistant":
                question = disturb(sample.question, sample.answer, recipe.noise, seed_from(identity, seed))
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


def _replay(earlier: Sequence[TrainingRow], recipe: Recipe, new: int, seed: int) -> list[TrainingRow]:
    """Earlier rows, so many that they are the recipe's share of the whole; all of them where there are fewer.

    Each leaf's part is its number of rows times its weight, so a leaf that is still weak comes back more often.
    """
    wanted = min(round(recipe.replay / (1 - recipe.replay) * new), len(earlier))
    leaves: dict[str, list[TrainingRow]] = {}
    for row in earlier:
        leaves.setdefault(row.leaf, []).append(row)
    shares = {leaf: len(rows) * recipe.weights.get(leaf, 1.0) for leaf, rows in leaves.items()}
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

"""What a card says, gathered from the records of the steps, the reports and the leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilab.artifacts import Checkpoint
from ilab.data import Leaf
from ilab.packaging.card import CardFacts, LeafFact, PhaseFact, ScoreFact
from ilab.packaging.licences import base_licence, licence_of_package, licences

TINY = "the tiny built-in model: randomly drawn weights, untrained"
SMALL = 10_000_000  # parameters below which a model can only demonstrate the method
SHOWN = ("epochs", "batch", "learning_rate", "warmup_steps", "schedule", "weight_decay", "precision", "max_length")
_HEADING = re.compile(r"^#[ \t]+(.+)$", re.MULTILINE)


def taught(tree: str, leaves: Sequence[Leaf]) -> dict[str, Any]:
    """Which taxonomy, what each leaf taught (by digest), and the authors' own words about works and licences."""
    return {
        "digest": tree,
        "leaves": {leaf.path: leaf.digest for leaf in leaves},
        "attributions": {leaf.path: leaf.attribution for leaf in leaves if leaf.attribution},
    }


def card_facts(
    name: tuple[str, str, str],
    models: Mapping[str, Checkpoint],
    leaves: Sequence[Leaf],
    reports: Mapping[str, Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
) -> CardFacts:
    """The facts of a card, as records and reports tell them. ``name`` is (model name, version, licence), in which an
    empty licence is that of the base; ``models`` holds the ``tuned`` one and the ``base``."""
    card, evaluation = reports["card"], reports["evaluation"]
    base = first(history, "base")
    generate = first(history, "generate")
    tiny = str(base["fields"]["model"]).startswith("tiny:")
    made = card["leaves"]
    base_name = TINY if tiny else _base_name(base, models["base"].model)
    terms = base_licence(models["base"].model, tiny)
    teacher = generate["fields"]["teacher"]
    return CardFacts(
        name=name[0],
        version=name[1],
        license=licence_of_package(name[2], terms),
        base=base_name,
        taxonomy_revision=first(history, "taxonomy")["fields"]["tree"],
        leaves=tuple(
            LeafFact(
                path=leaf.path,
                kind=leaf.kind,
                created_by=leaf.created_by,
                attribution=leaf.attribution,
                samples=made.get(leaf.path, {}).get("accepted", 0),
            )
            for leaf in leaves
        ),
        flow=card["flow"],
        teacher=teacher or None,
        accepted=sum(leaf["accepted"] for leaf in made.values()),
        rejected=sum(sum(leaf["rejected"].values()) for leaf in made.values()),
        phases=tuple(_phases(history, models["tuned"])),
        scores=tuple(_score(leaf, evaluation) for leaf in evaluation["leaves"]),
        baselines={k: v for k, v in evaluation["total"]["baselines"].items() if v is not None},
        gate=reports["gate"]["line"],
        terms=licences((base_name, terms), teacher, leaves),
        demonstration=tiny or base["counts"].get("parameters", SMALL) < SMALL,
    )


def _phases(history: Sequence[Mapping[str, Any]], model: Checkpoint) -> list[PhaseFact]:
    """The training runs in the order of the work; only the last one's choice is at hand."""
    runs = [record for record in history if record["type"] == "train"]
    choice = model.choice()
    return [
        PhaseFact(
            name=record["step"],
            rows=record["counts"].get("rows", 0),
            settings={key: record["fields"][key] for key in SHOWN},
            chosen=f"{choice['name']} ({choice['rule']})" if record is runs[-1] else "see lineage.json",
        )
        for record in runs
    ]


def _score(leaf: Mapping[str, Any], evaluation: Mapping[str, Any]) -> ScoreFact:
    names = evaluation["models"]
    delta = leaf["deltas"].get(evaluation["candidate"]) or {}
    low, high = delta.get("low"), delta.get("high")
    return ScoreFact(
        leaf=leaf["name"],
        items=leaf["n"],
        base=leaf["models"][names[0]]["value"],
        phase1=leaf["models"][names[1]]["value"] if len(names) > 2 else None,
        tuned=leaf["models"][names[-1]]["value"],
        change=delta.get("value"),
        interval=(low, high) if low is not None and high is not None else None,
    )


def _base_name(base: Mapping[str, Any], folder: Path) -> str:
    """The heading of the base model's card, if it has one, and its digest: what is true wherever the model lies."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    heading = _HEADING.search(text)
    digest = str(base["fields"]["model"])
    return f"{heading[1].strip()[:80]} ({digest})" if heading else digest


def first(history: Sequence[Mapping[str, Any]], type_: str) -> Mapping[str, Any]:
    """The first record of a step of this type."""
    return next(record for record in history if record["type"] == type_)

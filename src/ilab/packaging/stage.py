"""Packaging and registration as the pipeline sees them. Both stand behind the gate.

A package holds what was evaluated: the weights and tokenizer of the chosen checkpoint, the model card, the lineage of
every step, the evaluation and the gate's decision. The registry lies outside the store, so a registration is looked
up again at every run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilab.artifacts import Checkpoint, Package, Report
from ilab.core.step import Counts, Site
from ilab.data import Leaf
from ilab.errors import GateError, SetupError
from ilab.packaging.card import CardFacts, LeafFact, PhaseFact, ScoreFact, model_card
from ilab.packaging.image import write_layout
from ilab.packaging.lineage import lineage
from ilab.packaging.oci import read_layout, verify_layout
from ilab.packaging.registry import Entry, Registry

LICENSE = "apache-2.0"
LAYOUT = "oci:"  # an image layout on this disk
SMALL = 10_000_000  # parameters below which a model can only demonstrate the method
SHOWN = ("epochs", "batch", "learning_rate", "warmup_steps", "schedule", "weight_decay", "precision", "max_length")


def require(gate: Mapping[str, Any]) -> None:
    """Raises GateError where the gate did not let the model through."""
    if not gate["publish"]:
        raise GateError(
            gate["line"],
            where="gate",
            hint="the report says which rule and which leaves: ilab report open. The model is kept; nothing was "
            "packaged or registered",
        )


def package(
    name: tuple[str, str],
    model: Checkpoint,
    leaves: Sequence[Leaf],
    reports: Mapping[str, Mapping[str, Any]],
    out: Package,
    site: Site,
) -> Counts:
    """Write the OCI layout. ``name`` is (model name, version); ``reports`` holds ``card`` (the samples'),
    ``evaluation`` and ``gate``."""
    require(reports["gate"])
    history = site.history()
    facts = _facts(name, model, leaves, reports, history)
    tree = _first(history, "taxonomy")["fields"]["tree"]
    files = {
        "README.md": model_card(facts).encode(),
        "lineage.json": _json(
            {
                **lineage(history, _taxonomy(tree, leaves), {"name": name[0], "version": name[1]}),
                "gate": {key: reports["gate"][key] for key in ("verdict", "published_anyway")},
            },
        ),
        "evaluation.json": _json(reports["evaluation"]),
        "gate.json": _json(reports["gate"]),
    }
    annotations = {
        "org.opencontainers.image.title": name[0],
        "org.opencontainers.image.version": name[1],
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.description": "A language model built from a taxonomy with ilab",
    }
    write_layout(out.path, model.model, files, annotations, name[1])
    if problems := verify_layout(out.path):
        raise SetupError(f"the package was damaged while it was written: {problems[0]}", where=str(out.path))
    layout = read_layout(out.path)
    return {"layers": len(layout.layers), "bytes": layout.size}


def register(
    name: tuple[str, str],
    layout: Package,
    evaluation: Mapping[str, Any],
    gate: Mapping[str, Any],
    out: Report,
    site: Site,
) -> Counts:
    """Enter the package in the registry under its name and version."""
    require(gate)
    total = evaluation["total"]["models"]
    entry = Entry(
        name=name[0],
        version=name[1],
        digest=read_layout(layout.path).digest,
        uri=f"{LAYOUT}{layout.path}",
        metrics={
            "score": gate["score"],
            "threshold": gate["threshold"],
            "verdict": gate["verdict"],
            "published_anyway": gate["published_anyway"],
            "base": total[evaluation["reference"]]["value"],
            "tuned": total[evaluation["candidate"]]["value"],
        },
        lineage={record["step"]: record["key"] for record in site.history()},
    )
    _registry(site).register(entry)
    # Neither the time nor the place of the registration belongs into the artifact.
    out.write({"name": entry.name, "version": entry.version, "digest": entry.digest, "metrics": entry.metrics})
    return {"registered": 1}


def is_registered(entry: Mapping[str, Any], site: Site) -> bool:
    """Whether the registry still says what the artifact says, and its package is where it says."""
    if not Path(site.where.registry or "").exists():
        return False
    found = _registry(site).get(entry["name"], entry["version"])
    if found is None or found.digest != entry["digest"]:
        return False
    return not found.uri.startswith(LAYOUT) or Path(found.uri.removeprefix(LAYOUT)).is_dir()


def _registry(site: Site) -> Registry:
    return Registry(Path(site.where.registry or ""))


def _taxonomy(tree: str, leaves: Sequence[Leaf]) -> dict[str, Any]:
    """Which taxonomy, what each leaf taught (by digest), and the authors' own words about works and licences."""
    return {
        "digest": tree,
        "leaves": {leaf.path: leaf.digest for leaf in leaves},
        "attributions": {leaf.path: leaf.attribution for leaf in leaves if leaf.attribution},
    }


def _facts(
    name: tuple[str, str],
    model: Checkpoint,
    leaves: Sequence[Leaf],
    reports: Mapping[str, Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
) -> CardFacts:
    card, evaluation = reports["card"], reports["evaluation"]
    base = _first(history, "base")
    generate = _first(history, "generate")
    tiny = str(base["fields"]["model"]).startswith("tiny:")
    made = card["leaves"]
    return CardFacts(
        name=name[0],
        version=name[1],
        license=LICENSE,
        base="the tiny built-in model: randomly drawn weights, untrained" if tiny else base["fields"]["model"],
        taxonomy_revision=_first(history, "taxonomy")["fields"]["tree"],
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
        teacher=generate["fields"]["teacher"] or None,
        accepted=sum(leaf["accepted"] for leaf in made.values()),
        rejected=sum(sum(leaf["rejected"].values()) for leaf in made.values()),
        phases=tuple(_phases(history, model)),
        scores=tuple(_score(leaf, evaluation) for leaf in evaluation["leaves"]),
        baselines={k: v for k, v in evaluation["total"]["baselines"].items() if v is not None},
        gate=reports["gate"]["line"],
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


def _first(history: Sequence[Mapping[str, Any]], type_: str) -> Mapping[str, Any]:
    return next(record for record in history if record["type"] == type_)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

"""The bill of materials of a model: CycloneDX 1.6 as JSON (ECMA-424), with the model card that it has a place for.

It says the same as the card and the lineage, in the words that tools of supply chains read: what the model is, what it
was made from (base model, taxonomy, works, teacher), how it was measured, under which terms. It holds no time, and its
serial number is derived from what it says, so equal packages have equal bills.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ilab.packaging.card import CardFacts, ScoreFact
from ilab.packaging.licences import UNKNOWN, Licence

NAME = "bom.json"
SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
MODEL, BASE, TAXONOMY, TEACHER = "model", "base-model", "taxonomy", "teacher"
_SPACE = uuid.UUID("6f5f2a0e-6c0e-5d5b-9a57-1f2b1c0f8d11")  # of our serial numbers
_SPDX = {  # identifiers are spelt as SPDX spells them; others are names
    name.lower(): name
    for name in (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-SA-3.0",
        "CC-BY-3.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "GPL-3.0-only", "LGPL-3.0-only", "MPL-2.0",
    )
}  # fmt: skip


def bill(facts: CardFacts, files: Mapping[str, str], leaves: Mapping[str, str], tools: Sequence[str]) -> bytes:
    """The bill as JSON. ``files`` maps the model's files to digests (``sha256:…``), ``leaves`` those of the taxonomy to
    theirs; ``tools`` are ``name version``."""
    found = facts.terms
    parts = [_base(facts, found), _taxonomy(facts, found, leaves)]
    parts += [_teacher(facts, found)] if facts.teacher else []
    document: dict[str, Any] = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _model(facts, files), "tools": {"components": [_tool(tool) for tool in tools]}},
        "components": parts,
        "dependencies": [
            {"ref": MODEL, "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }
    said = json.dumps(document, sort_keys=True, ensure_ascii=False)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_SPACE, said)}"
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _model(facts: CardFacts, files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": facts.name,
        "version": facts.version,
        "description": "A language model built from a taxonomy with ilab",
        "licenses": _licence(facts.license),
        "components": [
            {"type": "file", "bom-ref": f"file/{name}", "name": name, "hashes": [_hash(digest)]}
            for name, digest in sorted(files.items())
        ],
        "modelCard": _card(facts),
    }


def _card(facts: CardFacts) -> dict[str, Any]:
    limits = [*facts.limits, "it may state falsehoods fluently; nobody has examined it for bias or safety"]
    metrics = [metric for score in facts.scores for metric in _metrics(score)]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "datasets": [{"ref": TAXONOMY}],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        **({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}),
        "considerations": {"technicalLimitations": limits},
        "properties": [
            {"name": "ilab:gate", "value": facts.gate},
            {"name": "ilab:flow", "value": facts.flow},
            {"name": "ilab:samples", "value": str(facts.accepted)},
        ],
    }


def _metrics(score: ScoreFact) -> list[dict[str, Any]]:
    """A leaf's score before and after, and the change with its 95 % interval. Values are text in this format."""
    named = {"score, base": score.base, "score, tuned": score.tuned}
    found: list[dict[str, Any]] = [
        {"type": name, "slice": score.leaf, "value": f"{value:.4f}"}
        for name, value in named.items()
        if value is not None
    ]
    if score.change is not None:
        change: dict[str, Any] = {"type": "score, change", "slice": score.leaf, "value": f"{score.change:+.4f}"}
        if score.interval is not None:
            low, high = score.interval
            change["confidenceInterval"] = {"lowerBound": f"{low:+.4f}", "upperBound": f"{high:+.4f}"}
        found.append(change)
    return found


def _base(facts: CardFacts, found: Sequence[Licence]) -> dict[str, Any]:
    of = next(one for one in found if one.part == "base model")
    return {
        "type": "machine-learning-model",
        "bom-ref": BASE,
        "name": facts.base,
        **_terms(of.licence),
        **_asked(of),
    }


def _taxonomy(facts: CardFacts, found: Sequence[Licence], leaves: Mapping[str, str]) -> dict[str, Any]:
    """The taxonomy, with each leaf as data, under the terms of the works that it names."""
    terms: dict[str, list[str]] = {}
    for one in found:
        for leaf in one.leaves:
            terms.setdefault(leaf, []).append(one.licence)
    return {
        "type": "data",
        "bom-ref": TAXONOMY,
        "name": "taxonomy",
        "version": facts.taxonomy_revision,
        "data": [{"type": "dataset", "name": "taxonomy"}],
        "components": [
            {
                "type": "data",
                "bom-ref": f"leaf/{leaf.path}",
                "name": leaf.path,
                "version": leaves.get(leaf.path, ""),
                "authors": [{"name": leaf.created_by}],
                "data": [{"type": "dataset", "name": leaf.path}],
                **_terms(*terms.get(leaf.path, ())),
                "properties": [{"name": "ilab:samples", "value": str(leaf.samples)}],
            }
            for leaf in sorted(facts.leaves, key=lambda leaf: leaf.path)
        ],
        "properties": [
            {"name": "ilab:obligation", "value": f"{one.licence}: {asks}"}
            for one in found
            if one.part == "works"
            for asks in one.obligations
        ],
    }


def _teacher(facts: CardFacts, found: Sequence[Licence]) -> dict[str, Any]:
    of = next(one for one in found if one.part == "teacher")
    return {
        "type": "machine-learning-model",
        "bom-ref": TEACHER,
        "name": facts.teacher or "",
        "description": "wrote the training samples; it is no part of the model",
        "scope": "excluded",
        **_terms(of.licence),
        **_asked(of),
    }


def _asked(of: Licence) -> dict[str, Any]:
    asks = [{"name": "ilab:obligation", "value": one} for one in of.obligations]
    return {"properties": asks} if asks else {}


def _terms(*names: str) -> dict[str, Any]:
    known = [name for name in names if name != UNKNOWN]
    return {"licenses": [choice for name in known for choice in _licence(name)]} if known else {}


def _licence(name: str) -> list[dict[str, Any]]:
    identifier = _SPDX.get(name.lower())
    return [{"license": {"id": identifier} if identifier else {"name": name}}]


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}


def _tool(tool: str) -> dict[str, str]:
    name, _, version = tool.partition(" ")
    plain = re.sub(r"[^\w.+-]", "-", name)
    return {"type": "application", "name": plain, **({"version": version} if version else {})}

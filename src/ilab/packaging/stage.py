"""Packaging, pushing and registration as the pipeline sees them. All stand behind the gate.

A package holds what was evaluated: the weights and tokenizer of the chosen checkpoint, the model card, the lineage of
every step, the evaluation and the gate's decision, the bill of materials, and the probe that proves later that it is
this model. Registries, ours and others, lie outside the store, so what is there is looked up again at every run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ilab.artifacts import Checkpoint, Package, Report
from ilab.core.step import Counts, Site
from ilab.data import Leaf
from ilab.errors import GateError, SetupError
from ilab.packaging.base_image import take_image
from ilab.packaging.bom import NAME as BOM
from ilab.packaging.bom import bill
from ilab.packaging.card import CardFacts, model_card
from ilab.packaging.changelog import KEY, PAGE, changelog_page
from ilab.packaging.changelog import NAME as CHANGELOG
from ilab.packaging.facts import card_facts, first, taught
from ilab.packaging.image import LICENCE, TITLE, VERSION, How, write_layout
from ilab.packaging.lineage import NAME as LINEAGE
from ilab.packaging.lineage import lineage
from ilab.packaging.oci import Form, read_layout, verify_layout
from ilab.packaging.ollama import gguf_files
from ilab.packaging.probe import take_probe
from ilab.packaging.publish import holds, place_of, push_package, reach_of
from ilab.packaging.registry import Entry, Registry, is_there, open_registry
from ilab.packaging.sinks import sinks_of, to_be
from ilab.packaging.stages import Stages
from ilab.transfer.layout import PROBE

LAYOUT = "oci:"  # an image layout on this disk; one in a bucket is entered by its s3:// address
DESCRIPTION = "org.opencontainers.image.description"


@dataclass(frozen=True)
class Wanted:
    """The package's name, version and form; the digest of its base image, its licence and a type of GGUF, or empty."""

    name: str
    version: str
    form: Form
    base_image: str
    license: str
    gguf: str


def require(gate: Mapping[str, Any]) -> None:
    """Raises GateError where the gate did not let the model through."""
    if not gate["publish"]:
        raise GateError(
            gate["line"],
            where="gate",
            hint="the report says which rule and which leaves: ilab report open. The model is kept; nothing was "
            "packaged, pushed or registered",
        )


def package(
    wanted: Wanted,
    models: Mapping[str, Checkpoint],
    leaves: Sequence[Leaf],
    reports: Mapping[str, Mapping[str, Any]],
    out: Package,
    site: Site,
) -> Counts:
    """Write the OCI layout. ``models`` holds the ``tuned`` one and its ``base``; ``reports`` ``card`` (the samples'),
    ``evaluation`` and ``gate``, in which there may be a ``changelog``."""
    require(reports["gate"])
    history = site.history()
    model = models["tuned"].model
    facts = card_facts((wanted.name, wanted.version, wanted.license), models, leaves, reports, history)
    facts = facts.model_copy(update={"form": wanted.form, "base_image": wanted.base_image})
    files: dict[str, bytes | Path] = {**_papers(facts, model, leaves, reports, site)}
    if wanted.gguf:
        files |= gguf_files(model, files, wanted.gguf, wanted.name, site)
    annotations = {
        TITLE: wanted.name,
        VERSION: wanted.version,
        LICENCE: facts.license,
        DESCRIPTION: "A language model built from a taxonomy with ilab",
    }
    base = take_image(wanted.base_image, reach_of(site.where), site)
    write_layout(out.path, model, files, annotations, wanted.version, How(wanted.form, base))
    if problems := verify_layout(out.path):
        raise SetupError(f"the package was damaged while it was written: {problems[0]}", where=str(out.path))
    layout = read_layout(out.path)
    return {"layers": len(layout.layers), "bytes": layout.size}


def push(layout: Package, gate: Mapping[str, Any], out: Report, site: Site) -> Counts:
    """Bring the package to ``where.package.push``, if that is anywhere, and leave a receipt."""
    require(gate)
    given = site.where.package
    digest = read_layout(layout.path).digest
    size = 0
    if given.push:
        done = push_package(layout.path, place_of(given.push), reach_of(site.where), site.work / "sign", site.emit)
        size = done.size
    # The place is no part of the artifact, and neither is whether there was one.
    out.write({"digest": digest})
    return {"pushed": int(bool(given.push)), "bytes": size}


def is_pushed(receipt: Mapping[str, Any], site: Site) -> bool:
    """Whether the package is where it is to be."""
    given = site.where.package
    return not given.push or holds(place_of(given.push), receipt["digest"], reach_of(site.where))


def register(
    name: tuple[str, str],
    layout: Package,
    evaluation: Mapping[str, Any],
    gate: Mapping[str, Any],
    out: Report,
    site: Site,
) -> Counts:
    """Enter the package in the registry under its name and version, and tell the other registries."""
    require(gate)
    total = evaluation["total"]["models"]
    entry = Entry(
        name=name[0],
        version=name[1],
        digest=read_layout(layout.path).digest,
        uri=_uri(site.address(layout.path)),
        remote=_remote(site),
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
    registry = _registry(site)
    told = sinks_of(site.where)
    for sink in told:
        sink.tell(to_be(Stages(registry), entry))
    # Last: a registry that could not be told is told again at the next run.
    registry.register(entry)
    # Neither the time nor the place of the registration belongs into the artifact.
    out.write({"name": entry.name, "version": entry.version, "digest": entry.digest, "metrics": entry.metrics})
    return {"registered": 1 + len(told)}


def is_registered(entry: Mapping[str, Any], site: Site) -> bool:
    """Whether the registry still says what the artifact says, and its package is where it says."""
    if not is_there(site.where.registry or ""):
        return False
    found = _registry(site).get(entry["name"], entry["version"])
    if found is None or found.digest != entry["digest"] or found.remote != _remote(site):
        return False
    if not found.uri.startswith(LAYOUT):
        return True
    # What a path of this machine means, others with a store in a bucket do not find.
    return "://" not in site.address(site.work) and Path(found.uri.removeprefix(LAYOUT)).is_dir()


def _uri(address: str) -> str:
    return address if "://" in address else f"{LAYOUT}{address}"


def _remote(site: Site) -> str:
    """Where others find the package; empty where it was pushed nowhere."""
    if not site.where.package.push:
        return ""
    place = place_of(site.where.package.push)
    if isinstance(place, Path):
        return str(place)
    return f"{replace(place, revision='')}:{place.revision}" if place.revision else str(place)


def _papers(
    facts: CardFacts, model: Path, leaves: Sequence[Leaf], reports: Mapping[str, Mapping[str, Any]], site: Site
) -> dict[str, bytes]:
    """What a package holds beside the model."""
    history = site.history()
    taxonomy = taught(first(history, "taxonomy")["fields"]["tree"], leaves)
    gate = {key: reports["gate"][key] for key in ("verdict", "published_anyway")}
    told = lineage(history, taxonomy, {"name": facts.name, "version": facts.version})
    decision = dict(reports["gate"])
    changelog = decision.pop(KEY, None)
    if changelog is not None:
        told["chain"] = changelog["chain"]
    site.emit.progress(0, None, "", "asking the model for its probe")
    probe = take_probe(model, site.where.threads)
    tools = [f"{name} {version}" for name, version in told["tools"].items()]
    page = changelog_page(facts.name, facts.version, changelog) if changelog is not None else ""
    return {
        "README.md": model_card(facts, page).encode(),
        **({CHANGELOG: _json(changelog), PAGE: page.encode()} if changelog is not None else {}),
        LINEAGE: _json({**told, "gate": gate}),
        "evaluation.json": _json(reports["evaluation"]),
        "gate.json": _json(decision),
        PROBE: _json(probe.model_dump(mode="json")),
        BOM: bill(facts, probe.files, taxonomy["leaves"], tools),
    }


def _registry(site: Site) -> Registry:
    return open_registry(site.where.registry or "", site.where)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

"""The bill of materials against CycloneDX's own schema, and the terms that card and bill tell of."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from ilab.data import Leaf
from ilab.packaging.bom import bill
from ilab.packaging.card import CardFacts, LeafFact, PhaseFact, ScoreFact, model_card
from ilab.packaging.licences import UNKNOWN, base_licence, licence_of_package, licences


def leaf(path: str, attribution: str | None) -> Leaf:
    return Leaf.model_construct(path=path, attribution=attribution)


LEAVES = [
    leaf("knowledge/canal", "Title of work: Canals\nLicense of the work: CC-BY-SA-4.0\nCreator names: Wikipedia\n"),
    leaf("knowledge/lock", "License of the work: CC-BY-SA-4.0\nLicense of the work: MIT\n"),
    leaf("skills/record", None),
]


def facts(teacher: str = "mixtral") -> CardFacts:
    return CardFacts(
        name="team/lamp",
        version="0.1.0",
        license="apache-2.0",
        base="Granite (sha256:b)",
        taxonomy_revision="tree:1",
        leaves=tuple(LeafFact(path=one.path, kind="k", created_by="ann", samples=3) for one in LEAVES),
        flow="full",
        teacher=teacher or None,
        accepted=9,
        rejected=1,
        phases=(PhaseFact(name="knowledge", rows=3, settings={}, chosen="the last"),),
        scores=(
            ScoreFact(leaf="knowledge/canal", items=9, base=0.1, tuned=0.6, change=0.5, interval=(0.3, 0.7)),
            ScoreFact(leaf="skills/record", items=0, base=None, tuned=None),
        ),
        gate="pass",
        terms=licences(("Granite (sha256:b)", "apache-2.0"), teacher, LEAVES),
    )


def made(teacher: str = "mixtral") -> dict[str, Any]:
    files = {"model.safetensors": f"sha256:{'a' * 64}", "config.json": f"sha256:{'b' * 64}"}
    found: dict[str, Any] = json.loads(bill(facts(teacher), files, {"knowledge/canal": "d1"}, ["torch 2.13.0"]))
    return found


@pytest.mark.parametrize("teacher", ["mixtral", "my-llama-3", ""])
def test_the_bill_is_cyclonedx(teacher: str) -> None:
    if not all(importlib.util.find_spec(name) for name in ("cyclonedx", "jsonschema", "referencing")):
        pytest.skip("cyclonedx-python-lib is not there")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made(teacher))) is None
    broken = made(teacher) | {"specVersion": 7}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_what_the_bill_says() -> None:
    told = made()
    model = told["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "team/lamp", "0.1.0")
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert [one["name"] for one in model["components"]] == ["config.json", "model.safetensors"]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    change = next(one for one in metrics if one["type"] == "score, change")
    assert change["slice"] == "knowledge/canal"
    assert change["confidenceInterval"] == {"lowerBound": "+0.3000", "upperBound": "+0.7000"}
    base, taxonomy, teacher = told["components"]
    assert base["licenses"] == [{"license": {"id": "Apache-2.0"}}] and teacher["name"] == "mixtral"
    canal = taxonomy["components"][0]
    assert canal["version"] == "d1" and canal["licenses"] == [{"license": {"id": "CC-BY-SA-4.0"}}]
    assert "licenses" not in taxonomy["components"][2], "nobody said under which terms"
    assert told["dependencies"][0] == {"ref": "model", "dependsOn": ["base-model", "taxonomy", "teacher"]}
    assert "timestamp" not in json.dumps(told)
    assert made()["serialNumber"] == told["serialNumber"] != made("another")["serialNumber"]
    assert [one["bom-ref"] for one in made("")["components"]] == ["base-model", "taxonomy"]


def test_obligations_are_told_and_what_is_unknown_is_said_to_be() -> None:
    found = {(one.part, one.licence): one for one in licences(("b", UNKNOWN), "some-model", LEAVES)}
    assert "find out" in found["base model", UNKNOWN].obligations[0]
    assert "ask whoever serves it" in found["teacher", UNKNOWN].obligations[0]
    assert found["works", "CC-BY-SA-4.0"].leaves == ("knowledge/canal", "knowledge/lock")
    assert any("same licence" in asks for asks in found["works", "CC-BY-SA-4.0"].obligations)
    assert found["works", UNKNOWN].leaves == ("skills/record",)
    (teacher,) = [one for one in licences(("b", "mit"), "meta-Llama-3.3-70B", []) if one.part == "teacher"]
    assert "begins with Llama" in teacher.obligations[0]
    assert [one.part for one in licences(("b", "mit"), "", [])] == ["base model", "rules"]
    card = model_card(facts())
    assert "## Licences and obligations" in card and "no legal advice" in card and "CC\\-BY" not in card
    assert "of 2 leaves: CC-BY-SA-4.0" in card


def test_the_licence_of_the_package(tmp_path: Path) -> None:
    assert base_licence(tmp_path, tiny=False) == UNKNOWN
    (tmp_path / "README.md").write_text("---\nlicense: Llama3.1\n---\n# Base\n")
    assert base_licence(tmp_path, tiny=False) == "llama3.1"
    (tmp_path / "README.md").write_text("---\nlicense: 'x\\ny: evil'\n---\n")
    assert base_licence(tmp_path, tiny=False) == UNKNOWN
    assert base_licence(tmp_path, tiny=True) == "apache-2.0"
    assert [licence_of_package(*one) for one in (("mit", "llama3"), ("", "llama3"), ("", UNKNOWN))] == [
        "mit", "llama3", "other",
    ]  # fmt: skip

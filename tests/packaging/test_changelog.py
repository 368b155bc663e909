"""The changelog of a build: figures of the report, whoever's words in it escaped."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ilab.packaging.changelog import chain_of, changelog_in, changelog_of, changelog_page, points, steps_of
from ilab.packaging.image import write_layout

EVIL = "knowledge/<script>|x|`"


def cell(value: float | None) -> dict[str, Any]:
    bounds = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"value": value, "low": bounds[0], "high": bounds[1], "p": 0.5}


def leaf(name: str, before: float, after: float) -> dict[str, Any]:
    models = {"base": cell(0.0), "previous": cell(before), "phase 2": cell(after)}
    return {
        "name": name,
        "n": 12,
        "models": models,
        "deltas": {"phase 2": cell(after)},
        "since_previous": {"delta": cell(after - before), "verdict": "improved"},
        "verdict": "no detectable change",
    }


EVALUATION: dict[str, Any] = {
    "reference": "base",
    "candidate": "phase 2",
    "previous": "previous",
    "leaves": [leaf(EVIL, 0.25, 0.75), leaf("knowledge/b", 0.5, 0.5)],
}
GATE: dict[str, Any] = {
    "verdict": "pass",
    "line": "score 0.75 [x](javascript:1)",
    "changed": [EVIL],
    "rules": [{"name": "no harm elsewhere", "n": 12, "verdict": "pass", "detail": "fine", **cell(0.0)}],
}
RELEASE: dict[str, Any] = {
    "version": "0.2.0",
    "digest": "sha256:2",
    "chain": [{"version": "0.1.0", "digest": "sha256:1"}],
}


def fields(**given: Any) -> Any:
    leaves = {EVIL: "1", "knowledge/b": "2"}
    plain = {"release": "", "how": "increment", "reason": "leaves changed", "added": (), "changed": (EVIL,)}
    return SimpleNamespace(**{**plain, "removed": (), "leaves": leaves, **given})


def test_changes_are_held_against_the_release_before() -> None:
    told = changelog_of(fields(), EVALUATION, GATE, RELEASE)
    (row,) = told["changed"]
    assert (row["before"]["value"], row["after"]["value"], row["change"]["value"]) == (0.25, 0.75, 0.5)
    assert row["verdict"] == "improved"
    assert told["unchanged"]["leaves"] == ["knowledge/b"] and told["unchanged"]["low"] == -0.1
    assert [one["version"] for one in told["chain"]] == ["0.1.0", "0.2.0"]
    assert told["since"] == {"version": "0.2.0", "digest": "sha256:2"}


def test_a_full_build_begins_the_chain_again() -> None:
    told = changelog_of(fields(how="full", removed=("knowledge/c",)), EVALUATION, GATE, RELEASE)
    assert told["chain"] == [] and told["since"]["version"] == "0.2.0"
    assert "knowledge/c" in changelog_page("m", "0.3.0", told)


def test_the_first_release_is_held_against_the_base() -> None:
    alone = {
        **EVALUATION,
        "previous": None,
        "leaves": [{key: value for key, value in leaf("a", 0.25, 0.75).items() if key != "since_previous"}],
    }
    told = changelog_of(fields(how="full", added=("a", "b"), changed=()), alone, GATE, {})
    measured, missing = told["added"]
    assert (measured["before"]["value"], measured["change"]["value"]) == (0.0, 0.75)
    assert (missing["n"], missing["change"], missing["verdict"]) == (0, None, "not measured")
    assert told["since"] is None and told["unchanged"] is None
    assert "The first release" in changelog_page("m", "0.1.0", told)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        '{"format": 1, "leaves": [1], "chain": []}',
        '{"format": 1, "leaves": {}, "chain": ["0.1.0"]}',
        '{"format": 1, "leaves": {}, "chain": {"version": "0.1.0"}}',
    ],
)
def test_a_package_of_others_may_say_anything_of_itself(tmp_path: Path, text: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    steps = {"steps": ["base", {"type": "base"}, {"type": "base", "fields": {"model": "a"}}]}
    papers = {"changelog.json": text.encode(), "lineage.json": json.dumps(steps).encode()}
    write_layout(tmp_path / "package", model, papers, {}, "0.1.0")
    assert changelog_in(tmp_path / "package") == {} and chain_of(tmp_path / "package") == []
    assert steps_of(tmp_path / "package") == steps["steps"][2:]


def test_names_of_leaves_cannot_write_markup() -> None:
    page = changelog_page("m", "0.3.0", changelog_of(fields(), EVALUATION, GATE, RELEASE))
    assert "[x](" not in page and "\\[x\\](" in page
    assert "knowledge/\\<script\\>\\|x\\|\\`" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| knowledge/") and "75.0%" in line]
    assert row.replace("\\|", "").count("|") == 7, "six cells, whatever the leaf is called"
    assert "0.2.0 ← 0.1.0 ← base" in page


def test_points() -> None:
    assert points({"value": 0.045, "low": -0.018, "high": 0.109}) == "+4.5 [-1.8, +10.9]"
    assert points({"value": 0.5, "low": None, "high": None}) == "+50.0"
    assert points(None) == points({"value": None, "low": None, "high": None}) == "–"

"""The second release of a small project: measured beside the first, which stays for as long as it is registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ilab.core.files import read_json
from ilab.packaging.oci import extract_layout
from ilab.packaging.registry import Registry

KILN = "knowledge/technology/devices/tavrin_kiln"
SECOND = ("-p", "previous_model=registry", "-p", "output_model_version=0.2.0")


def report(project: Any, step: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(project.store.contents(project.latest(step)) / "report.json")
    return found


def register_here(built: Any) -> None:
    """The project is a copy: its registry points to the packages of the original."""
    registry = Registry(built.root / ".ilab/registry.sqlite")
    for entry in registry.list():
        own = built.store.root / "package" / Path(entry.uri).name
        registry.register(entry.model_copy(update={"uri": f"oci:{own}"}))


def test_an_edited_leaf_must_get_better_and_the_others_not_worse(built: Any) -> None:
    register_here(built)
    first = report(built, "final-evaluation")
    built.edit(f"taxonomy/{KILN}/qna.yaml", "answer: Greta Olsen", "answer: It was Greta Olsen")
    built.built(*SECOND)
    second, decision = report(built, "final-evaluation"), report(built, "gate")
    assert second["models"] == ["base", "previous", "phase 1", "phase 2"]
    assert second["total"]["models"]["previous"] == first["total"]["models"]["phase 2"], "the release scores as it did"
    assert decision["changed"] == [KILN] and decision["release"] == "previous"
    assert decision["items"] == 10, "the score is that of the changed leaf"
    elsewhere = next(rule for rule in decision["rules"] if rule["name"] == "no harm elsewhere")
    assert elsewhere["n"] == 10 and "unchanged leaves" in elsewhere["detail"] and "previous" in elsewhere["detail"]
    page = (built.runs()[-1] / "report.html").read_text(encoding="utf-8")
    assert "since the previous release" in page.lower()

    first_package, second_package = (
        Path(entry.uri.removeprefix("oci:")) for entry in Registry(built.root / ".ilab/registry.sqlite").list()
    )
    removed = {row["path"] for row in built.json("pipeline", "gc", *SECOND)["removed"]}
    assert removed and str(first_package) not in removed
    assert first_package.is_dir() and second_package.is_dir()
    assert {row["state"] for row in built.plan(*SECOND).values()} == {"reuse"}, "the first can still be measured"


def test_the_first_release_has_no_predecessor(built: Any) -> None:
    done = built.ilab("plan", "-p", "previous_model=registry")
    assert done.returncode == 2 and "no other version than 0.1.0" in done.stderr


def test_general_questions_are_apart_from_the_leaves_and_unanswerable_ones_too(built: Any) -> None:
    (built.root / "general.csv").write_text(
        "question,choices,answer,subject\n"
        + "".join(f"What is {n} plus one?,{n + 1}|{n}|{n + 7},A,=1+1\n" for n in range(8))
    )
    built.built(
        *("-p", "eval_general=general.csv", "-p", "eval_open_book=true", "-p", "final_eval_few_shots=2"),
        *("-p", "output_metrics_format=csv", "-p", "output_save_checkpoints=true"),
    )
    found, decision = report(built, "final-evaluation"), report(built, "gate")
    assert found["general"]["n"] == 8 and [one["name"] for one in found["general"]["subjects"]] == ["general/=1+1"]
    assert len(found["leaves"]) == 2 and found["total"]["n"] == 20, "general questions are no leaf"
    general = next(rule for rule in decision["rules"] if rule["name"] == "general")
    assert general["applies"] and general["n"] == 8
    assert found["total"]["metrics"]["open"].keys() == {"base", "phase 1", "phase 2"}
    table = (built.runs()[-1] / "metrics.csv").read_text()
    kept = sorted(path.parent for path in (built.runs()[-1] / "checkpoints").glob("*/*/model.safetensors"))
    assert {path.parent.name for path in kept} == {"train-phase-1", "train-phase-2"}
    assert "\n=" not in table and ",=" not in table
    (built.root / "general.csv").write_text("question,choices,answer\nOne?,1|2,C\n")
    done = built.ilab("plan", "-p", "eval_general=general.csv")
    assert done.returncode == 2 and "general.csv, row 1" in done.stderr
    assert json.loads((built.runs()[-1] / "report.json").read_text())["gate"]["verdict"]


def test_published_in_spite_of_the_gate_is_told_wherever_the_model_goes(built: Any, tmp_path: Path) -> None:
    strict = ("-p", "eval_quality_threshold=0.99")
    refused = built.ilab("run", *strict)
    assert refused.returncode == 5 and "FAIL" in refused.stdout and "report" in refused.stdout
    built.built(*strict, "-p", "publish_anyway=true")
    entry = built.json("registry", "show", "small")
    assert entry["metrics"]["verdict"] == "fail" and entry["metrics"]["published_anyway"] is True
    assert "fail, published anyway" in " ".join(built.ilab("registry", "list").stdout.split())
    folder = extract_layout(Path(entry["uri"].removeprefix("oci:")), tmp_path / "package")
    assert read_json(folder / "lineage.json")["gate"] == {"verdict": "fail", "published_anyway": True}
    assert read_json(folder / "gate.json")["published_anyway"] is True
    assert "published anyway" in (folder / "README.md").read_text(encoding="utf-8")
    assert "publish_anyway was set" in (built.runs()[-1] / "report.html").read_text(encoding="utf-8")


def test_a_project_that_moved_is_registered_at_its_new_place(built: Any, tmp_path: Path) -> None:
    register_here(built)
    moved = built.copy(tmp_path / "moved")
    built.root.rename(tmp_path / "gone")
    assert moved.plan()["register"]["state"] == "run"
    moved.built()
    entry = moved.json("registry", "show", "small")
    assert Path(entry["uri"].removeprefix("oci:")).is_relative_to(moved.root)
    assert moved.plan(*SECOND)["previous"]["state"] == "run", "the next build finds the release"

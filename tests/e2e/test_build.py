"""One real build of a small project: what it makes, what it says, and what a second one does not do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ilab.core.files import read_json
from ilab.core.store import digest_tree
from ilab.packaging.oci import extract_layout, verify_layout

HEAVY = ("torch", "transformers", "numpy", "aiohttp")


def test_every_artifact_has_a_record_and_nothing_unfinished_is_left(reference: Any) -> None:
    records = list(reference.store.records())
    pipeline = json.loads(reference.ilab("--json", "plan").stdout)
    assert {(row["type"], row["key"]) for row in pipeline} == {(record.type, record.key) for record in records}
    for record in records:
        contents = reference.store.contents(record)
        assert digest_tree(contents) == record.digest
        assert any(path.name != "record.json" for path in contents.iterdir())
    assert reference.store.partials() == []


def test_results_go_to_standard_output_and_events_to_standard_error(first_run: Any) -> None:
    project, done = first_run
    head = next(line for line in done.stdout.splitlines() if line.startswith("leaf"))
    assert head.split()[:2] == ["leaf", "items"]
    assert "phase 1" in head and "phase 2" in head
    for row in ("calendar_line", "tavrin_kiln", "all leaves"):
        assert any(line.startswith(row) for line in done.stdout.splitlines()), row
    for text in ("gate  score", "small-scale demonstration", "ilab model chat", "ilab plan", "-p sdg_teacher_model="):
        assert text in done.stdout
    for event in ("generate: started", "train-phase-1: done in", "register: done in", "note: no teacher"):
        assert event in done.stderr
        assert event not in done.stdout
    places = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if str(project.root) in line)
    assert set(places) == {"report", "package", "model", "registry"}
    for place in places.values():
        assert Path(place.split("  (")[0]).exists()


def test_the_package_is_the_model_that_was_chosen(reference: Any, tmp_path: Path) -> None:
    from ilab.models.local import LocalModel

    package = reference.store.contents(reference.latest("package"))
    assert verify_layout(package) == []
    folder = extract_layout(package, tmp_path / "out")
    chosen = reference.store.contents(reference.latest("select-phase-2")) / "model"
    for file in chosen.iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    lineage = read_json(folder / "lineage.json")
    assert reference.latest("taxonomy").fields["tree"] in json.dumps(lineage)
    assert len(lineage["taxonomy"]["attributions"]) == 2
    assert all("License" in text for text in lineage["taxonomy"]["attributions"].values())
    assert "small-scale" in (folder / "README.md").read_text() or "demonstrat" in (folder / "README.md").read_text()
    model = LocalModel.load(folder, "cpu", 1)
    assert len(list(model.generate(model.renderer.encode_text("Which lamp"), max_tokens=3))) <= 3


def test_the_registry_names_the_package(reference: Any) -> None:
    (entry,) = reference.json("registry", "list")
    package = reference.store.contents(reference.latest("package"))
    assert (entry["name"], entry["version"]) == ("small", "0.1.0")
    assert entry["digest"] == read_json(package / "index.json")["manifests"][0]["digest"]
    assert entry["lineage"]["train-phase-1"] == reference.latest("train-phase-1").key
    assert reference.json("registry", "show", "small")["digest"] == entry["digest"]
    missing = reference.ilab("registry", "show", "smal")
    assert missing.returncode == 2
    assert "smal" in missing.stderr


def test_the_report_is_one_small_page_with_a_twin(reference: Any) -> None:
    places = reference.json("report", "open")
    page = Path(places["report"])
    assert page.stat().st_size < 1_000_000
    assert "<html" in page.read_text(encoding="utf-8")
    twin = read_json(Path(places["twin"]))
    assert twin["gate"]["publish"] is True
    assert {step["name"] for step in twin["steps"]} == set(reference.plan())
    assert twin["counts"]["samples"] == reference.latest("generate").counts["accepted"]
    assert {len(rows) for rows in twin["metrics"].values()} == {
        reference.latest("train-phase-1").counts["steps"],
        reference.latest("train-phase-2").counts["steps"],
    }


def test_a_second_run_does_no_work_and_loads_nothing_heavy(built: Any) -> None:
    before = built.digests()
    done = built.instrumented(
        "run", after=f"print('loaded:', *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].split() == ["loaded:"]
    assert set(built.states().values()) == {"reuse"}
    assert built.digests() == before
    assert "tavrin_kiln" in done.stdout
    assert str(built.runs()[0] / "report.html") in done.stdout  # the first page still holds


def test_results_as_json(built: Any) -> None:
    result = built.json("run")
    assert result["gate"]["verdict"] in ("pass", "inconclusive")
    assert {row["name"] for row in result["table"]} >= {"all leaves"}
    assert result["error"] is None
    assert Path(result["places"]["package"]).is_dir()
    states = {row["state"] for row in built.json("pipeline", "status")}
    assert states == {"done"}


def test_a_gate_that_stops_ends_with_5_and_publishes_nothing(built: Any) -> None:
    before = {record.key for record in built.store.records()}
    done = built.ilab("run", "-p", "eval_quality_threshold=0.99")
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert "tavrin_kiln" in done.stdout and "all leaves" in done.stdout
    assert "< 0.99" in done.stdout
    assert "FAIL" in done.stderr and "ilab report open" in done.stderr
    assert "package  " not in done.stdout and "registry" not in done.stdout
    assert {event.step for event in built.events() if event.data.get("state") == "run"} == {"gate"}
    new = [record.type for record in built.store.records() if record.key not in before]
    assert new == ["gate"]
    page = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("report"))
    assert read_json(Path(page).with_suffix(".json"))["gate"]["verdict"] == "fail"
    # Back to the old settings nothing runs, and the page shown is not the failed one.
    again = built.json("run")
    assert read_json(Path(again["places"]["report"]).with_suffix(".json"))["gate"]["publish"] is True
    assert set(built.states().values()) == {"reuse"}


def test_undecided_stops_unless_told_to_publish(built: Any) -> None:
    done = built.ilab("--json", "run", "-p", "gate_on_inconclusive=stop")
    gate = json.loads(done.stdout)["gate"]
    assert gate["verdict"] == "inconclusive"
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"] == gate["line"]


def test_a_registration_that_is_gone_is_made_again(built: Any) -> None:
    (built.root / ".ilab" / "registry.sqlite").unlink()
    plan = built.plan()
    assert {name for name, row in plan.items() if row["state"] != "reuse"} == {"register"}
    assert plan["register"]["why"] == "what it did outside the store is gone"
    built.built()
    assert {name for name, state in built.states().items() if state != "reuse"} == {"register"}
    assert len(built.json("registry", "list")) == 1


def test_the_built_model_answers(reference: Any) -> None:
    done = reference.ilab("model", "chat", "-qq", "--max-tokens", "4", "Who wrote the manual?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")


@pytest.mark.parametrize(
    ("left_out", "idle"),
    [("compositional_skills", "train-phase-2"), pytest.param("knowledge", "train-phase-1", marks=pytest.mark.long)],
)
def test_a_taxonomy_of_one_kind_hands_on_what_it_cannot_train(project: Any, left_out: str, idle: str) -> None:
    shutil.rmtree(project.root / "taxonomy" / left_out)
    project.built()
    record = project.latest(idle)
    assert record.counts == {"candidates": 1, "rows": 0, "steps": 0}
    base = project.latest("base" if idle == "train-phase-1" else "select-phase-1")
    weights = [
        project.store.contents(record) / "unchanged" / "model.safetensors",
        project.store.contents(base) / "model" / "model.safetensors",
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert len(project.json("registry", "list")) == 1
    page = Path(project.json("report", "open")["report"])
    assert {name: bool(rows) for name, rows in read_json(page.with_suffix(".json"))["metrics"].items()} == {
        "phase 1": idle != "train-phase-1",
        "phase 2": idle != "train-phase-2",
    }

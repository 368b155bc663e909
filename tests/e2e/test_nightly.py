"""Two merges, night after night: what is new is taught to the stable release, the rest is left alone."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ilab.core.files import read_json
from ilab.packaging.changelog import changelog_in
from ilab.packaging.oci import extract_layout
from ilab.packaging.registry import Registry

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
KILN = "knowledge/technology/devices/tavrin_kiln"
STATION = "knowledge/history/places/dunmarrow_station"
CALENDAR = "compositional_skills/scheduling/calendar_line"
MARGIN = ("-p", "gate_margin=0.5")  # ten items of each leaf show no smaller loss
# Kills the process when phase 2 begins to train on anything.
KILL = """
import os, ilab.training.stage as stage
whole = stage.train_phase
def killed(fields, dataset, *rest):
    if dataset.rows():
        os.kill(os.getpid(), 9)
    return whole(fields, dataset, *rest)
stage.train_phase = killed
"""


def report(project: Any, step: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(project.store.contents(project.latest(step)) / "report.json")
    return found


def rows(project: Any, step: str) -> list[dict[str, Any]]:
    text = (project.store.contents(project.latest(step)) / "train.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def add(project: Any, leaf: str) -> None:
    for file in (EXAMPLE / leaf).iterdir():
        target = project.root / "taxonomy" / leaf / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())


def stable_here(built: Any) -> None:
    """The project is a copy: its registry points to the package of the original."""
    registry = Registry(built.root / ".ilab/registry.sqlite")
    for entry in registry.list():
        own = built.store.root / "package" / Path(entry.uri).name
        registry.register(entry.model_copy(update={"uri": f"oci:{own}"}))
    assert built.ilab("registry", "alias", "small", "0.1.0", "stable").returncode == 0


def packaged(project: Any, version: str) -> Path:
    entry = Registry(project.root / ".ilab/registry.sqlite").get("small", version)
    assert entry is not None
    return Path(entry.uri.removeprefix("oci:"))


def nightly(project: Any, *arguments: str) -> dict[str, Any]:
    told: dict[str, Any] = project.json("pipeline", "nightly", *MARGIN, *arguments)
    return told


def same_figures(told: dict[str, Any], evaluation: dict[str, Any], decision: dict[str, Any]) -> None:
    """Whatever the changelog says stands in the report as well."""
    leaves = {leaf["name"]: leaf for leaf in evaluation["leaves"]}
    for row in (*told["added"], *told["changed"]):
        leaf = leaves[row["leaf"]]
        for side, model in (("before", "previous"), ("after", "phase 2")):
            assert all(row[side][key] == leaf["models"][model][key] for key in ("value", "low", "high"))
        assert all(row["change"][key] == leaf["since_previous"]["delta"][key] for key in ("value", "low", "high"))
    rule = next(rule for rule in decision["rules"] if rule["name"] == "no harm elsewhere")
    assert all(told["unchanged"][key] == rule[key] for key in ("n", "value", "low", "high", "verdict"))


@pytest.mark.long
def test_two_merges_a_kill_and_a_removal(built: Any, tmp_path: Path) -> None:
    stable_here(built)
    before = built.digests()
    nothing = nightly(built)
    assert (nothing["how"], nothing["built"], nothing["channels"]) == ("nothing", False, {})
    assert "small 0.1.0 (stable)" in nothing["reason"]
    assert built.digests().items() >= before.items() and built.latest("package").key in str(packaged(built, "0.1.0"))

    # The first merge adds a leaf.
    add(built, STATION)
    first = nightly(built)
    assert (first["how"], first["version"], first["leaves"]["added"]) == ("increment", "0.2.0", [STATION])
    assert first["channels"] == {"nightly": "0.2.0", "stable": "0.1.0"}
    samples, others = built.lines("generate", "samples.jsonl", STATION)
    assert len(samples) > 100 and not others, "only the new leaf is generated"
    trained = rows(built, "mix-knowledge")
    new = [row for row in trained if row["leaf"] == STATION]
    old = [row for row in trained if row["leaf"] != STATION]
    assert {row["source"] for row in old} == {"replay"} and {row["leaf"] for row in old} == {KILN, CALENDAR}
    assert len(old) == len(new), "nightly.replay is a half"
    chosen = built.latest("train-phase-1")
    assert chosen.inputs["base"] == built.latest("start").key, "training starts from the stable checkpoint"
    evaluation, decision = report(built, "final-evaluation"), report(built, "gate")
    assert [leaf["n"] for leaf in evaluation["leaves"]] == [10, 10, 10], "all leaves are measured"
    assert decision["changed"] == [STATION]
    told = changelog_in(packaged(built, "0.2.0"))
    same_figures(told, evaluation, decision)
    assert told["unchanged"]["leaves"] == [CALENDAR, KILN] and told["unchanged"]["n"] == 20
    assert told["unchanged"]["verdict"] == "pass" and told["unchanged"]["low"] > -0.5
    release = Registry(built.root / ".ilab/registry.sqlite").get("small", "0.1.0")
    assert release is not None and told["chain"] == [{"version": "0.1.0", "digest": release.digest}]
    folder = extract_layout(packaged(built, "0.2.0"), tmp_path / "package")
    assert read_json(folder / "lineage.json")["chain"] == told["chain"]
    assert "## Changelog" in (folder / "README.md").read_text(encoding="utf-8")
    assert built.json("registry", "show", "small", "nightly")["changelog"] == told
    assert read_json(Path(first["folder"]) / "changelog.json") == told
    assert "dunmarrow" in (Path(first["folder"]) / "CHANGELOG.md").read_text(encoding="utf-8")

    # The same night again: nothing. What the gate did not pass becomes stable by a person's hand alone.
    made = built.digests()
    again = nightly(built)
    assert (again["how"], again["version"], built.digests()) == ("nothing", "0.2.0", made)
    refused = built.ilab("pipeline", "nightly", *MARGIN, "--promote")
    assert refused.returncode == 5 and "inconclusive" in refused.stderr
    assert built.json("registry", "show", "small", "stable")["version"] == "0.1.0"
    assert built.ilab("registry", "alias", "small", "0.2.0", "stable").returncode == 0

    # The second merge edits a skill; the process is killed when its training begins.
    built.edit(f"taxonomy/{CALENDAR}/qna.yaml", "'[14] lesson with Marta'", "'At [14] lesson with Marta'")
    killed = built.instrumented("pipeline", "nightly", *MARGIN, before=KILL)
    assert killed.returncode == -signal.SIGKILL
    generated = built.latest("generate")
    second = nightly(built)
    assert (second["how"], second["version"], second["leaves"]["changed"]) == ("increment", "0.2.1", [CALENDAR])
    assert built.states()["generate"] == "reuse" and built.latest("generate").key == generated.key
    assert built.latest("train-phase-1").counts["rows"] == 0, "no knowledge changed"
    kept = {row["leaf"] for row in rows(built, "earlier")}
    assert kept == {KILN, STATION}, "what the first release and the second were taught, without the edited leaf"
    assert second["channels"] == {"nightly": "0.2.1", "stable": "0.2.0"}
    told = changelog_in(packaged(built, "0.2.1"))
    same_figures(told, report(built, "final-evaluation"), report(built, "gate"))
    assert [one["version"] for one in told["chain"]] == ["0.1.0", "0.2.0"]

    # A rolled back channel stays where it is put, though the leaves are the same.
    assert built.ilab("registry", "rollback", "small", "--alias", "nightly").returncode == 0
    assert nightly(built)["channels"] == {"nightly": "0.2.0", "stable": "0.2.0"}
    needed = {"earlier", "mix-knowledge", "mix-skills"}
    lineage = Registry(built.root / ".ilab/registry.sqlite").get("small", "0.2.0")
    assert lineage is not None
    gone = {Path(row["path"]).name for row in built.json("pipeline", "gc")["removed"]}
    assert not gone & {lineage.lineage[step] for step in needed}, "what the stable release was taught is kept"

    # Reasons for a full build.
    long = nightly(built, "--dry-run", "--from-base")
    assert (long["how"], long["reason"], long["version"]) == ("full", "asked for", "0.3.0")
    most = built.json("--set", "nightly.increments=1", "pipeline", "nightly", "--dry-run")
    assert most["how"] == "full" and most["reason"] == "0.2.0 is the end of a chain of 1, and nightly.increments is 1"
    for file in (built.root / "taxonomy" / KILN).iterdir():
        file.unlink()
    (built.root / "taxonomy" / KILN).rmdir()
    # This one is made, and its gate fails: it tells what it learned, and moves nothing.
    failed = built.ilab("--json", "pipeline", "nightly", *MARGIN, "-p", "eval_quality_threshold=0.99")
    assert failed.returncode == 5 and "FAIL" in failed.stderr
    removed = json.loads(failed.stdout)
    assert (removed["how"], removed["leaves"]["removed"], removed["channels"]) == ("full", [KILN], {})
    assert KILN in removed["reason"] and "FAIL" in removed["error"]
    told = read_json(built.runs()[-1] / "changelog.json")
    assert (told["how"], told["chain"], told["removed"]) == ("full", [], [KILN]) and told["since"]["version"] == "0.2.0"
    assert {row["leaf"] for row in rows(built, "mix-knowledge")} == {STATION}, "nothing of the removed leaf is replayed"
    for alias in ("nightly", "stable"):
        assert built.json("registry", "show", "small", alias)["version"] == "0.2.0"


def test_the_first_release_a_failed_gate_and_a_lost_store(built: Any) -> None:
    stable_here(built)
    add(built, STATION)
    assert built.json("pipeline", "nightly", "--dry-run")["how"] == "increment"
    limit = built.json("--set", "nightly.increments=0", "pipeline", "nightly", "--dry-run")
    assert limit["how"] == "full" and "nightly.increments is 0" in limit["reason"]
    other = built.json("pipeline", "nightly", "--dry-run", "-p", "train_chat_template=granite")
    assert other["how"] == "full" and "base model" in other["reason"]
    own = built.ilab("pipeline", "nightly", "-p", "previous_model=registry")
    assert own.returncode == 2 and "sets previous_model itself" in own.stderr
    for step in ("mix-knowledge", "mix-skills"):
        built.store.remove(built.latest(step))
    lost = built.json("pipeline", "nightly", "--dry-run")
    assert lost["how"] == "full" and "no longer in the store" in lost["reason"]
    assert built.ilab("registry", "recall", "small", "stable", "--reason", "wrong").returncode == 0
    first = built.json("pipeline", "nightly", "--dry-run")
    assert (first["how"], first["reason"]) == ("full", "nothing is stable yet")
    assert first["version"] == "0.1.1", "the recalled one keeps its number"


def test_one_at_a_time(built: Any) -> None:
    from ilab.core.lease import Lease

    stable_here(built)
    folder = built.store.root / "nightly" / "small"
    folder.mkdir(parents=True)
    lease = Lease(folder / "lease.json")
    try:
        second = built.ilab("pipeline", "nightly")
    finally:
        lease.release()
    assert second.returncode == 3 and "another nightly build of small is under way" in second.stderr
    assert built.ilab("pipeline", "nightly").returncode == 0

"""The engine: keys, reuse, early cut-off, crash safety, leases, planning. Everything through real files."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import toy
import yaml

from ilab.config import Where
from ilab.core import lease
from ilab.core.pipeline import Plan, build, read_pipeline
from ilab.core.run import Engine
from ilab.core.step import canonical, fingerprint
from ilab.core.store import Store, digest_tree
from ilab.errors import InputError, SetupError, Stopped

STEPS = """
name: toy
steps:
  load: {step: load, source: $source}
  strip: {step: strip, from: {text: load}}
  twice: {step: repeat, times: $times, from: {text: strip}}
  thrice: {step: repeat, times: 3, from: {text: strip}}
  join: {step: join, from: {parts: {a: twice, b: thrice}, extra: strip}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Any:
    toy.CALLS.clear()
    (tmp_path / "source.txt").write_text("# note\nx\n")
    (tmp_path / "toy.yaml").write_text(STEPS)

    class Project:
        root = tmp_path
        store = Store(tmp_path / "store")
        source = tmp_path / "source.txt"

        def plan(self, times: int = 2, **more: Any) -> Plan:
            pipeline = read_pipeline(tmp_path / "toy.yaml", lambda name: tmp_path / name)
            values = {"source": str(self.source), "times": times, **more}
            return build(pipeline, toy.TYPES, values, toy.resolvers())

        def engine(self) -> Engine:
            return Engine(self.store, Where())

        def run(self, times: int = 2, **more: Any) -> dict[str, Any]:
            toy.CALLS.clear()
            return self.engine().run(self.plan(times), **more)

        def states(self, times: int = 2) -> dict[str, str]:
            return {p.planned.name: p.state for p in self.engine().preview(self.plan(times))}

    return Project()


def test_a_second_run_does_no_work_and_gives_the_same_records(project: Any) -> None:
    first = project.run()
    assert toy.CALLS == ["load", "strip", "repeat", "repeat", "join"]
    second = project.run()
    assert toy.CALLS == []
    assert second == first
    assert set(project.states().values()) == {"reuse"}


def test_changing_a_field_runs_only_what_depends_on_it(project: Any) -> None:
    project.run()
    project.run(times=4)
    assert sorted(toy.CALLS) == ["join", "repeat"]
    text = (project.root / "store" / "latest" / "join" / "text.txt").read_text()
    assert text == "a=" + "x\n" * 4 + "b=" + "x\n" * 3 + "x\n"


def test_a_comment_is_cut_off_early(project: Any) -> None:
    before = project.run()
    project.source.write_text("# another note\nx\n")
    states = project.states()
    assert states == {"load": "run", "strip": "maybe", "twice": "maybe", "thrice": "maybe", "join": "maybe"}
    after = project.run()
    assert toy.CALLS == ["load", "strip"]
    assert after["join"].linked_to == before["join"].key
    assert after["join"].digest == before["join"].digest
    assert (project.root / "store" / "latest" / "join" / "text.txt").read_text().startswith("a=x")
    assert set(project.states().values()) == {"reuse"}


def test_a_plan_sees_through_a_chain_of_results_that_will_be_linked(project: Any) -> None:
    """The first step was made again with the same contents: everything behind it is linked, and the plan says so."""
    project.run()
    project.source.write_text("# another note\nx\n")
    engine = project.engine()
    plan = project.plan()
    for name in ("load", "strip"):
        engine.run_step(plan, name)
    states = {p.planned.name: p.state for p in engine.preview(plan)}
    assert states == {"load": "reuse", "strip": "reuse", "twice": "link", "thrice": "link", "join": "link"}
    assert {p.digest for p in engine.preview(plan) if p.planned.name == "join"} == {project.store.latest("join").digest}


def test_the_plan_says_why(project: Any) -> None:
    previews = {p.planned.name: p for p in project.engine().preview(project.plan())}
    assert previews["load"].why == "never made"
    project.run()
    project.source.write_text("y\n")
    previews = {p.planned.name: p for p in project.engine().preview(project.plan(times=5))}
    assert previews["load"].why == "source has other contents"
    assert previews["twice"].why == "times: 2 → 5; input text changed"
    assert previews["twice"].state == "run"
    assert previews["thrice"].state == "maybe"
    assert previews["thrice"].unless == ("strip",)


def test_names_are_not_identity_and_fields_are(project: Any) -> None:
    key = project.plan().steps["twice"].key
    renamed = project.root / "toy.yaml"
    renamed.write_text(STEPS.replace("twice", "doubled"))
    assert project.plan().steps["doubled"].key == key
    assert project.plan(times=3).steps["doubled"].key != key
    assert project.plan(times=3).steps["doubled"].key == project.plan(times=3).steps["thrice"].key


def test_force_runs_one_step_again_and_until_stops_there(project: Any) -> None:
    project.run()
    project.run(force=frozenset({"twice"}))
    assert toy.CALLS == ["repeat"]
    toy.CALLS.clear()
    project.source.write_text("z\n")
    project.engine().run(project.plan().until("strip"))
    assert toy.CALLS == ["load", "strip"]


def test_a_failing_step_leaves_no_artifact_and_keeps_the_others(project: Any) -> None:
    with pytest.raises(InputError, match="too often"):
        project.run(times=101)
    plan = project.plan(times=101)
    assert project.store.record("repeat", plan.steps["twice"].key) is None
    assert project.store.record("repeat", plan.steps["thrice"].key) is not None
    assert project.store.record("join", plan.steps["join"].key) is None


def test_half_an_artifact_is_never_taken_for_a_whole_one(project: Any) -> None:
    plan = project.plan()
    partial = project.store.directory("load", plan.steps["load"].key + ".partial") / "artifact"
    partial.mkdir(parents=True)
    (partial / "torn.txt").write_text("half")
    project.run()
    assert not (project.store.directory("load", plan.steps["load"].key) / "torn.txt").exists()
    assert project.store.partials() == []


def test_a_plan_survives_a_round_trip_and_refuses_another_identity(project: Any) -> None:
    plan = project.plan()
    dumped = json.loads(json.dumps(plan.dump()))
    assert Plan.load(dumped, toy.TYPES).steps["join"].key == plan.steps["join"].key
    dumped["steps"][2]["fields"]["times"] = 9
    with pytest.raises(InputError, match="has the key"):
        Plan.load(dumped, toy.TYPES)


def test_records_hold_what_is_needed_to_trust_them(project: Any) -> None:
    record = project.run()["twice"]
    assert record.fields == {"times": 2}
    assert record.counts == {"times": 2}
    assert record.inputs == {"text": project.plan().steps["strip"].key}
    assert record.digest == digest_tree(project.store.contents(record))
    assert record.tools["python"]


def test_an_old_result_that_a_kill_left_behind_is_found(project: Any) -> None:
    """Killed in the middle of --force: the old result was moved aside, and only ``gc`` would ever look for it."""
    record = project.run()["twice"]
    left = project.store.directory("repeat", f"{record.key}.0123abcd.old")
    left.mkdir()
    assert project.store.partials() == [left]


def test_stopping_keeps_what_is_done(project: Any) -> None:
    engine = project.engine()
    engine.stop.set()
    with pytest.raises(Stopped):
        engine.run(project.plan())
    assert toy.CALLS == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("source: $sorce", "unknown parameter"),
        ("step: lod, source: $source", "unknown step type"),
        ("step: load, source: $source, colour: red", "colour"),
    ],
)
def test_mistakes_in_a_pipeline_name_the_nearest_word(project: Any, change: str, message: str) -> None:
    text = STEPS.replace(
        "step: load, source: $source", change if change.startswith("step") else f"step: load, {change}"
    )
    (project.root / "toy.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        project.plan()
    assert "step load" in caught.value.where


def test_wrong_wiring_is_found_before_anything_runs(project: Any) -> None:
    body = yaml.safe_load(STEPS)
    for change, message in [
        ({"from": {}}, "not wired"),
        ({"from": {"txt": "load"}}, "no input 'txt'"),
        ({"from": {"text": "lod"}}, "no step"),
        ({"from": {"text": {"a": "load"}}}, "takes one step"),
        ({"from": {"text": "join"}}, "circle"),
    ]:
        body["steps"]["strip"] = {"step": "strip", **change}
        (project.root / "toy.yaml").write_text(yaml.safe_dump(body))
        with pytest.raises(InputError, match=message):
            project.plan()
    assert toy.CALLS == []


def test_canonical_form_refuses_what_has_no_stable_form() -> None:
    assert canonical({"b": 1, "a": [True, None, "é"]}) == '{"a":[true,null,"\\u00e9"],"b":1}'
    for value in ({1: 2}, {"a": {1, 2}}, object(), b"bytes"):
        with pytest.raises(TypeError):
            canonical(value)
    with pytest.raises(ValueError, match="not a number"):
        canonical([float("nan")])
    assert fingerprint(1.0) != fingerprint(1)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError) as caught:
        Store(tmp_path / "file" / "store")
    assert "--store" in caught.value.hint
    assert caught.value.exit_code == 3


def _hold(root: str, ready: Any) -> None:
    with Store(Path(root)).writing("load", "k" * 32):
        ready.set()
        time.sleep(60)


def test_one_writer_per_key_and_a_dead_writer_is_taken_over(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready))
    process.start()
    try:
        assert ready.wait(30)
        store = Store(tmp_path)
        with pytest.raises(SetupError, match="already making"), store.writing("load", "k" * 32):
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with store.writing("load", "k" * 32) as partial:
            assert partial.artifact.exists()
    finally:
        process.kill()


def test_killed_anywhere_the_same_command_finishes_with_the_same_bytes(tmp_path: Path) -> None:
    """kill -9 at the n-th write to the disk, for every n, then run to the end."""
    program = textwrap.dedent(
        """
        import os, sys
        sys.path.insert(0, sys.argv[1])
        left = int(sys.argv[3])
        real = {name: getattr(os, name) for name in ("rename", "replace", "fsync")}
        def counted(name):
            def call(*args, **kwargs):
                global left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)
                return real[name](*args, **kwargs)
            return call
        for name in real:
            setattr(os, name, counted(name))
        import toy
        from pathlib import Path
        from ilab.config import Where
        from ilab.core.pipeline import build, read_pipeline
        from ilab.core.run import Engine
        from ilab.core.store import Store
        root = Path(sys.argv[2])
        pipeline = read_pipeline(root / "toy.yaml", lambda name: root / name)
        plan = build(pipeline, toy.TYPES, {"source": str(root / "source.txt"), "times": 2}, toy.resolvers())
        records = Engine(Store(root / "store"), Where(jobs=1)).run(plan)
        print({name: record.digest for name, record in records.items()}, 10**6 - left if left > 10**5 else "")
        """
    )

    def attempt(root: Path, crash_at: int) -> subprocess.CompletedProcess[str]:
        root.mkdir(exist_ok=True)
        (root / "source.txt").write_text("# note\nx\n")
        (root / "toy.yaml").write_text(STEPS)
        return subprocess.run(
            [sys.executable, "-c", program, str(Path(toy.__file__).parent), str(root), str(crash_at)],
            capture_output=True,
            text=True,
            check=False,
        )

    unbroken = attempt(tmp_path / "unbroken", 10**6)
    assert unbroken.returncode == 0, unbroken.stderr
    expected, operations = unbroken.stdout.rsplit("} ", 1)
    total = int(operations)
    assert total > 20
    for crash_at in range(1, total + 1, 7):
        root = tmp_path / f"crash-{crash_at}"
        assert attempt(root, crash_at).returncode == -signal.SIGKILL
        again = attempt(root, 10**6)
        assert again.returncode == 0, again.stderr
        assert again.stdout.rsplit("} ", 1)[0] == expected


def test_a_lease_that_was_never_filled_locks_nobody_out(tmp_path: Path) -> None:
    """Killed, or out of disk, between making the file and writing into it."""
    partial = tmp_path / "load" / ("k" * 32 + ".partial")
    partial.mkdir(parents=True)
    (partial / "lease.json").touch()
    with Store(tmp_path).writing("load", "k" * 32) as taken:
        assert json.loads((partial / "lease.json").read_text())["pid"] == os.getpid()
        assert taken.artifact.exists()
    assert not (partial / "lease.json").exists()


def test_a_lease_that_another_machine_took_over_stays_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept neither renews the other's lease nor gives it back."""
    monkeypatch.setattr(lease, "HEARTBEAT", 0.3)
    path, other = tmp_path / "lease.json", {"pid": 1, "host": "elsewhere", "born": 1.0}
    slept = lease.Lease(path)
    (tmp_path / "other").write_text(json.dumps(other))
    os.utime(tmp_path / "other", (1.0, 1.0))
    os.replace(tmp_path / "other", path)
    slept._thread.join(timeout=5)
    assert not slept._thread.is_alive() and path.stat().st_mtime == 1.0
    slept.release()
    assert json.loads(path.read_text()) == other


def test_what_a_run_killed_behind_publishing_left_is_swept(project: Any) -> None:
    plan = project.plan()
    project.run()
    left = project.store.directory("strip", plan.steps["strip"].key + ".partial")
    (left / "work").mkdir(parents=True)
    project.run()
    assert project.store.partials() == []


def test_two_steps_that_are_the_same_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits for the other, however many steps may run at once, and then takes its result."""
    (tmp_path / "source.txt").write_text("x\n")
    steps = "name: twins\nsteps:\n" + "".join(f"  {name}: {{step: load, source: $source}}\n" for name in "abc")
    (tmp_path / "twins.yaml").write_text(steps)
    slow = toy.Load.run

    def run(self: toy.Load, *, out: toy.Text, site: Any) -> dict[str, int]:
        time.sleep(0.2)
        return slow(self, out=out, site=site)

    monkeypatch.setattr(toy.Load, "run", run)
    toy.CALLS.clear()
    pipeline = read_pipeline(tmp_path / "twins.yaml", lambda name: tmp_path / name)
    plan = build(pipeline, toy.TYPES, {"source": str(tmp_path / "source.txt")}, toy.resolvers())
    records = Engine(Store(tmp_path / "store"), Where(jobs=3)).run(plan)
    assert toy.CALLS == ["load"] and len({record.digest for record in records.values()}) == 1

"""``--detach`` and ``ilab process`` on the real command line, with a teacher on the loopback address."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ilab.core.store import Store
from ilab.processes import Process, Processes
from ilab.provenance import find_run
from ilab.testing.teacher import Teacher, serve

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
GENERATE = ("data", "generate", "--model", "teacher", "--pipeline", "simple", "--sdg-scale-factor", "1")
ONE = ("--set", "where.teacher.in_flight=1")


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Nothing runs on when a test has failed."""
    yield
    processes = Processes()
    for one in processes.all():
        if one.state == "running":
            processes.stop(one, kill_after=5)


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    with serve() as running:
        yield running


@pytest.fixture
def slow() -> Iterator[Teacher]:
    with serve(latency=0.1) as running:
        yield running


def ilab(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ilab", "-C", str(QUICKSTART), "--store", str(tmp_path / "store"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def detached(tmp_path: Path, *arguments: str) -> Process:
    done = ilab(tmp_path, "--json", *arguments, "--detach")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["attach"] == f"ilab process attach {facts['id']}"
    assert Path(facts["log"]).is_file()
    return Processes().read(facts["id"])


def listed(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ilab(tmp_path, "--json", "process", "list", *arguments).stdout)
    return found


def soon(what: Callable[[], bool]) -> None:
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")


def test_generated_in_the_background(tmp_path: Path, teacher: Teacher) -> None:
    done = ilab(tmp_path, *GENERATE, "--endpoint-url", teacher.url, "-dt")
    assert done.returncode == 0, done.stderr
    identity, log = re.findall(r"(\w+) runs in the background\nlog: (.*)\nTo follow it: ilab process attach \1\n", done.stdout)[0]  # fmt: skip
    watched = ilab(tmp_path, "process", "attach", identity[:5])
    assert watched.returncode == 0
    assert watched.stdout == Path(log).read_text()
    assert "generate: done in" in watched.stdout and "accepted" in watched.stdout
    assert f"{identity}: done" in watched.stderr
    assert len(find_run(Store(tmp_path / "store")).samples) > 50
    (facts,) = listed(tmp_path)
    assert (facts["state"], facts["exit_code"], facts["pid"]) == ("done", 0, None)
    assert facts["command"][-1] == "-dt" and facts["directory"] == str(Path.cwd())
    text = ilab(tmp_path, "process", "list").stdout
    assert identity in text and "done" in text
    assert ilab(tmp_path, "process", "attach").stdout == watched.stdout, "the newest, again"
    assert json.loads(ilab(tmp_path, "--json", "process", "remove", identity).stdout) == {"removed": [identity]}
    assert listed(tmp_path) == []
    assert not Path(log).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--taxonomy-path", "nowhere"), 2, "there is no taxonomy"),
        (("--pipeline", "nowhere"), 2, "nowhere"),
        (("--model", "somebody"), 2, "it serves: teacher"),
        (("--api-key", "sk-123"), 2, "by reference"),
        (("--budget", "many"), 2, "not a budget"),
        (("--preview", "1", "--num-instructions", "3"), 2, "exclude each other"),
        (("--dry-run",), 2, "exclude each other"),
        (("--endpoint-url", "http://127.0.0.1:9/v1"), 4, "no server answers here"),
        (("--pipeline", "extractive", "--model", "somebody", "-p", "eval_items=teacher"), 2, "it serves: teacher"),
    ],
)
def test_what_is_wrong_is_told_before_leaving(
    tmp_path: Path, teacher: Teacher, arguments: tuple[str, ...], code: int, told: str
) -> None:
    done = ilab(tmp_path, *GENERATE, "--endpoint-url", teacher.url, *arguments, "--detached")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert told in done.stderr
    assert Processes().all() == []


def test_a_second_teacher_is_met_before_leaving_too(tmp_path: Path, teacher: Teacher) -> None:
    flow = tmp_path / "agreed"
    flow.mkdir()
    (flow / "knowledge.yaml").write_text(
        "name: agreed\nversion: 1\nbranches:\n  pairs:\n    input: chunk\n    blocks:\n"
        "      - {type: llm, name: write, prompt: write.txt, tags: {question: QUESTION, answer: ANSWER}}\n"
        "      - {type: agreement, prompt: answer.txt, tags: {theirs: ANSWER}}\n"
    )
    (flow / "write.txt").write_text("{{ document }}")
    (flow / "answer.txt").write_text("{{ document }} {{ question }}")
    leaf = QUICKSTART / "taxonomy/knowledge/technology/devices/tavrin_kiln/qna.yaml"
    command = (*GENERATE, "--endpoint-url", teacher.url, "--taxonomy-path", str(leaf), "--pipeline", str(flow))
    none = ilab(tmp_path, *command, "--detach")
    assert none.returncode == 2 and "block 'agreement' asks a second teacher, and there is none" in none.stderr
    dead = ("--set", "where.verifier.url=http://127.0.0.1:9/v1")
    gone = ilab(tmp_path, *dead, *command, "-p", "sdg_verifier_model=other", "--detach")
    assert gone.returncode == 4 and "no server answers here" in gone.stderr and "where.verifier.url" in gone.stderr
    assert Processes().all() == []


def test_stopped_and_gone_on_with(tmp_path: Path, slow: Teacher) -> None:
    arguments = (*ONE, *GENERATE, "--endpoint-url", slow.url)
    process = detached(tmp_path, *arguments)
    soon(lambda: len(slow.calls) >= 5)
    (facts,) = listed(tmp_path, "--state", "running")
    assert facts["pid"] == process.pid and facts["seconds"] > 0
    assert ilab(tmp_path, "process", "remove", process.id).returncode == 2
    assert json.loads(ilab(tmp_path, "--json", "process", "prune").stdout) == {"removed": []}
    done = ilab(tmp_path, "--json", "process", "stop", process.id)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["exit_code"]) == ("stopped", 130)
    assert told["progress"].startswith("error: stopped")
    log = process.log.read_text()
    assert "stopping: saving the work" in log and "run the same command to go on" in log
    asked = len(slow.calls)
    assert 5 <= asked < 100
    again = ilab(tmp_path, *arguments)
    assert again.returncode == 0, again.stderr
    run = find_run(Store(tmp_path / "store"))
    assert run.record.counts["calls"] + asked == len(slow.calls)
    assert len(slow.calls) <= 114 + 1  # the one that was under way
    assert json.loads(ilab(tmp_path, "--json", "process", "prune").stdout) == {"removed": [process.id]}


def test_who_watches_may_leave(tmp_path: Path, slow: Teacher) -> None:
    process = detached(tmp_path, *ONE, *GENERATE, "--endpoint-url", slow.url)
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        watcher = subprocess.Popen(
            [sys.executable, "-m", "ilab", "process", "attach", process.id],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert watcher.stdout is not None
        assert watcher.stdout.readline() != ""
        os.killpg(watcher.pid, number)
        _, told = watcher.communicate()
        assert watcher.returncode == code
        assert ("goes on. To stop it" in told) == (code == 130)
        asked = len(slow.calls)
        soon(lambda asked=asked: len(slow.calls) > asked)  # type: ignore[misc]
        assert Processes().read(process.id).state == "running"


def test_a_failure_is_the_exit_code_of_attach(tmp_path: Path) -> None:
    with serve(lambda body: "nothing that anybody could read") as teacher:
        process = detached(tmp_path, *GENERATE, "--endpoint-url", teacher.url)
        watched = ilab(tmp_path, "process", "attach")
    assert watched.returncode == 4
    assert "failed, exit code 4" in watched.stderr
    (facts,) = listed(tmp_path, "--state", "errored")
    assert facts["id"] == process.id and "input rows gave no sample" in facts["progress"]
    text = ilab(tmp_path, "process", "list").stdout
    assert f"{process.id}  failed (4)" in text and "error:" in text


def test_a_killed_one_is_told_and_gone_on_with(tmp_path: Path, slow: Teacher) -> None:
    arguments = (*GENERATE, "--endpoint-url", slow.url)
    process = detached(tmp_path, *ONE, *arguments)
    soon(lambda: len(slow.calls) >= 5)
    os.kill(process.pid, signal.SIGKILL)
    assert ilab(tmp_path, "process", "attach", process.id).returncode == 137
    assert ilab(tmp_path, "process", "attach", process.id, "--latest").returncode == 2
    again = detached(tmp_path, *ONE, *arguments)
    asked = len(slow.calls)
    soon(lambda: len(slow.calls) >= asked + 3)
    os.killpg(again.group, signal.SIGKILL)  # with its supervisor, as a machine does that goes down
    watched = ilab(tmp_path, "process", "attach", again.id)
    assert (watched.returncode, "ended without a word" in watched.stderr) == (3, True)
    assert [facts["state"] for facts in listed(tmp_path)] == ["failed", "lost"]
    assert ilab(tmp_path, *arguments).returncode == 0
    assert len(slow.calls) <= 114 + 2


def test_two_that_make_the_same_result(tmp_path: Path, slow: Teacher) -> None:
    """One writes, the other is told so; a third with other settings goes on beside them."""
    arguments = (*ONE, *GENERATE, "--endpoint-url", slow.url)
    first = detached(tmp_path, *arguments)
    assert "runs in the background already" in ilab(tmp_path, "--json", *arguments, "--detach").stderr
    soon(lambda: len(slow.calls) >= 2)
    second = detached(tmp_path, *arguments, "--quiet")
    third = detached(tmp_path, *arguments, "--preview", "1")
    assert ilab(tmp_path, "process", "attach", second.id).returncode == 3
    assert f"process {first.pid} on {first.host} is already making this result" in second.log.read_text()
    assert ilab(tmp_path, "process", "attach", third.id).returncode == 0
    assert Processes().read(first.id).state == "running"
    states = {facts["id"]: facts["state"] for facts in listed(tmp_path)}
    assert states == {first.id: "running", second.id: "failed", third.id: "done"}


def test_a_build_and_a_server_leave_too(tmp_path: Path, teacher: Teacher) -> None:
    build = (
        "run",
        "--set",
        f"where.teacher.url={teacher.url}",
        "-p",
        "sdg_teacher_model=teacher",
        "-p",
        "sdg_scale_factor=1",
    )
    assert "it serves: teacher" in ilab(tmp_path, *build, "-p", "sdg_teacher_model=x", "--detach").stderr
    process = detached(tmp_path, *build, "--until", "generate")
    assert ilab(tmp_path, "process", "attach").returncode == 0
    assert "generate: done" in process.log.read_text()
    asked = len(teacher.calls)
    assert asked > 0
    reused = detached(tmp_path, *build, "--until", "generate")  # so that no teacher needs to be there
    assert ilab(tmp_path, "process", "attach", reused.id).returncode == 0
    assert len(teacher.calls) == asked
    assert ilab(tmp_path, "model", "serve", "--model-path", str(tmp_path / "none"), "--detach").returncode == 2
    assert ilab(tmp_path, "documents", "crawl", "gopher://x", "--detach").returncode == 2
    assert len(Processes().all()) == 2


def test_a_served_model_runs_until_it_is_stopped(tmp_path: Path, tiny_model: Path) -> None:
    process = detached(tmp_path, "model", "serve", "--model-path", str(tiny_model), "--port", "0")
    soon(lambda: "serving" in process.log.read_text())
    done = ilab(tmp_path, "process", "stop", process.id, "--force")
    assert done.returncode == 0, done.stderr
    assert Processes().read(process.id).state in ("done", "stopped")


def test_nothing_there_is_no_riddle(tmp_path: Path) -> None:
    assert listed(tmp_path) == []
    assert "--detach" in ilab(tmp_path, "process", "list").stderr
    for arguments in (("attach",), ("attach", "--uuid", "abc"), ("stop", "abc"), ("remove", "abc")):
        done = ilab(tmp_path, "process", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "ilab process list" in done.stderr


def test_every_other_long_command_leaves_too(tmp_path: Path, tiny_model: Path) -> None:
    """Train, measure, convert and download: what can be wrong is told first, the rest happens behind."""
    rows = [{"question": f"{n}?", "choices": ["a", "b", "c", "d"], "answer": n % 4, "subject": "law"} for n in range(6)]
    for name in ("dev", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [{"role": "user", "content": "What is 7?"}, {"role": "assistant", "content": "It is 7."}]
    (tmp_path / "train.jsonl").write_text(f"{json.dumps({'messages': said})}\n" * 4)
    model, training = str(tiny_model), ("--num-epochs", "1", "--max-seq-len", "64", "--effective-batch-size", "2")
    commands = (
        ("model", "train", "--data-path", str(tmp_path / "train.jsonl"), "--model-path", model, *training),
        ("model", "evaluate", "--benchmark", "mmlu", "--model", model, "--test-set", str(tmp_path), "--limit", "1"),
        ("model", "convert", model, "--output", str(tmp_path / "tiny.gguf")),
        ("model", "download", "--repository", f"file://{tiny_model}", "--model-dir", str(tmp_path / "models")),
    )
    for wrong in (
        ("model", "train", "--data-path", "nowhere.jsonl", "--model-path", model),
        (*commands[0], "--dry-run"),
        ("model", "evaluate", "--benchmark", "mmlu", "--model", "nowhere"),
        ("model", "convert", "nowhere"),
        ("model", "download", "--release", "main"),
        (*commands[3], "--dry-run"),
    ):
        assert ilab(tmp_path, *wrong, "--detach").returncode == 2, wrong
    assert Processes().all() == []
    for process in [detached(tmp_path, *command) for command in commands]:
        done = ilab(tmp_path, "process", "attach", process.id)
        assert done.returncode == 0, done.stdout
    assert (tmp_path / "tiny.gguf").is_file() and list((tmp_path / "models").glob("*/model.safetensors"))

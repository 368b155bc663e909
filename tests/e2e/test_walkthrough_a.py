"""Walk-through A: the commands of the first tutorials as the README of ``examples/walkthrough`` prints them.

In a copy of the example, in a home of its own, without internet: the hub is local and serves a tiny model under the
recommended student's name, the configured teacher is a scripted server, the website is served on loopback. Every
``console`` block is typed as it stands; what a line below a command says must be printed. ``console terminal=server``
runs until the end, ``console terminal=chat`` types its ``> `` lines.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml

pytest.importorskip("gguf")

from ilab.profiles import find_profile
from ilab.testing.hub import Repository, TestHub, serve_hub
from ilab.testing.lab_teacher import answer_lab_prompts
from ilab.testing.teacher import Teacher, answer_by_rule, serve
from ilab.training.tiny import TinySpec, make_tiny

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from test_tutorial import Block, blocks, commands, is_printed  # noqa: E402

EXAMPLE = ROOT / "examples" / "walkthrough"
PROFILE = "cpu"
SITE = "8123"  # the port that the README serves the site at
# Hides llama.cpp from every Python that starts with it on its path.
BLOCKER = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ("xllamacpp", "llama_cpp") else found(name, path, target)
PathFinder.find_spec = staticmethod(find_spec)
"""


@dataclass
class Machine:
    """A folder to work in, with a home beside it. ``said`` is what each command printed."""

    folder: Path
    port: int
    environment: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)

    def start(self, command: str, **more: object) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(["bash", "-c", command], cwd=self.folder, **{"env": self.environment, **pipes, **more})

    def type(self, command: str, spoken: str = "", **more: object) -> str:
        """What ``command`` prints, which must succeed."""
        child = self.start(command, **more)
        output, _ = child.communicate(spoken, timeout=300)
        assert child.returncode == 0, f"`{command}` ended with {child.returncode}\n{output}"
        self.said[command] = output
        return output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def script(body: dict[str, object]) -> str:
    """The teacher of all flows."""
    said = answer_lab_prompts(body)
    return answer_by_rule(body) if said.startswith("I have nothing") else said


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHub]:
    """A hub that has the models recommended for this machine: a tiny student, and a teacher that is never loaded."""
    folder = tmp_path_factory.mktemp("student") / "tiny"
    make_tiny(folder, TinySpec(width=32, heads=2, feed_forward=64, vocabulary=600))
    student = {path.name: path.read_bytes() for path in folder.iterdir()}
    models = find_profile(PROFILE, ROOT).models
    teacher = {models["teacher"].file: b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(1000)}
    with serve_hub(
        {models["student"].repository: Repository(student), models["teacher"].repository: Repository(teacher)}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def teacher() -> Iterator[Teacher]:
    with serve(script, models=("mentor",)) as running:
        yield running


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """The port that the example's website is served at."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    handler = functools.partial(Quiet, directory=str(EXAMPLE / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def machine_at(home: Path, folder: Path, hub: TestHub, teacher: Teacher) -> Machine:
    """A machine on which ``ilab config`` was told the teacher and a free port to serve at; nothing else."""
    port = free_port()
    homes = {name: str(home / name.lower()) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"HOME": str(home), "PATH": path, "HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment = {**{n: v for n, v in os.environ.items() if n != "HF_HUB_OFFLINE"}, **homes, **own}
    config = {
        "profile": PROFILE,
        "where": {
            "threads": 1,
            "teacher": {"url": teacher.url, "model": "mentor"},
            "serve": {"port": port},
        },
    }
    file = home / "xdg_config_home" / "instructlab" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return Machine(folder, port, environment)


def shown(terminal: str = "") -> list[Block]:
    """The console blocks of the README for one terminal."""
    found = blocks((EXAMPLE / "README.md").read_text(encoding="utf-8"))
    return [one for one in found if one.language == "console" and one.settings.get("terminal", "") == terminal]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, hub: TestHub, teacher: Teacher, site: int) -> Iterator[Machine]:
    """A machine on which all commands were typed, but for the last two terminals."""
    root = tmp_path_factory.mktemp("walkthrough")
    shutil.copytree(EXAMPLE, root / "mill", ignore=shutil.ignore_patterns("markdown"))
    machine = machine_at(root / "home", root / "mill", hub, teacher)
    for block in shown():
        for command, expected in commands(block.text):
            output = machine.type(command.replace(SITE, str(site)))
            for line in expected:
                assert is_printed(line, output), (
                    f"line {block.line}: `{command}` does not print `{line}`, but\n{output}"
                )
    yield machine


def rows(folder: Path, pattern: str) -> list[dict[str, str]]:
    (path,) = folder.glob(pattern)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pages(folder: Path) -> dict[str, str]:
    """What is read of each crawled page: its text without front matter, by the page's name without the port."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    same = {re.sub(r"\d{4,}", "", name): re.sub(r"localhost:\d+", "", text) for name, text in texts.items()}
    return {name: text.partition("\n---\n")[2] for name, text in same.items()}


def test_the_crawl_makes_the_pages_that_are_shipped(walked: Machine) -> None:
    assert len(pages(EXAMPLE / "markdown")) == 11
    assert pages(walked.folder / "markdown") == pages(EXAMPLE / "markdown")


def test_what_the_commands_leave(walked: Machine, hub: TestHub, teacher: Teacher) -> None:
    home = Path(walked.environment["XDG_CACHE_HOME"]) / "instructlab" / "models"
    assert (home / "Qwen/Qwen3-0.6B/model.safetensors").is_file() and list(home.glob("*.gguf"))
    assert len(rows(walked.folder / "generated", "train_mentor_*.jsonl")) == 20
    assert teacher.calls, "the configured teacher made them"
    asked = rows(walked.folder / "generated", "test_*.jsonl")
    seeds = yaml.safe_load((EXAMPLE / "qna.yaml").read_text())["seed_examples"]
    assert [row["user"] for row in asked] == [seed["question"] for seed in seeds]
    made = json.loads(next(text for command, text in walked.said.items() if command.startswith("jq")))
    assert len(made) == 20 and all(set(row) == {"system", "user", "assistant"} for row in made)
    models = walked.folder / "models"
    assert (models / "ggml-model-f16.gguf").read_bytes()[:4] == b"GGUF"
    assert {path.name for path in models.iterdir()} == {
        "answers.jsonl", "answers.md", "ggml-model-f16.gguf", "ggml-model-f16.parity.json", "merged_model",
    }  # fmt: skip
    trained = [text for command, text in walked.said.items() if command.startswith("ilab train")]
    assert len(trained) == 2
    for text in trained:
        assert text.count("no cuda device on this machine: the CPU trains") == 1
        assert "note: Qwen/Qwen3-0.6B is trained" in text
        assert text.count("\n### ") + text.startswith("### ") == len(seeds)


def test_the_same_command_again_does_nothing(walked: Machine) -> None:
    *_, last = (command for command in walked.said if command.startswith("ilab train"))
    there = {path: path.stat().st_mtime_ns for path in walked.folder.glob("models/**/*") if "answers" not in path.name}
    output = walked.type(last)
    assert "train: started" not in output and "GGUF: models/ggml-model-f16.gguf" in output
    assert {path: path.stat().st_mtime_ns for path in there} == there
    asked = walked.type("ilab test --data-dir pre-generated")
    assert "### What drives Brannock tide mill?" in asked and "expected: " in asked


def test_what_was_trained_can_be_uploaded(walked: Machine, hub: TestHub) -> None:
    pytest.importorskip("huggingface_hub")
    for path in ("models/ggml-model-f16.gguf", "models/merged_model"):
        walked.type(f"HF_TOKEN=t ilab model upload --model {path} --destination mill/{Path(path).stem}")
    whole = hub.repositories["mill/merged_model"].files
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= whole.keys()
    models = walked.folder / "models"
    assert whole["model.safetensors"] == (models / "merged_model" / "model.safetensors").read_bytes()
    sent = hub.repositories["mill/ggml-model-f16"].files
    assert sent == {"ggml-model-f16.gguf": (models / "ggml-model-f16.gguf").read_bytes()}


@contextmanager
def served(machine: Machine, command: str) -> Iterator[str]:
    """A server that answers, for the block; then it is stopped as by Ctrl-C, and what it has said is noted."""
    server = machine.start(f"exec {command}")
    address = f"http://127.0.0.1:{machine.port}/v1"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/models", timeout=5) as answer:
                    assert json.load(answer)["data"]
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, server.communicate()[0]
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        machine.said[command] = server.communicate(timeout=60)[0]
    assert server.returncode == 0, machine.said[command]


@pytest.mark.long
def test_the_same_on_the_taxonomy_that_the_commands_were_written_for(
    tmp_path: Path, shared: Path, hub: TestHub, teacher: Teacher
) -> None:
    """Its documents lie in a repository on the web, of which this machine has a copy."""
    shutil.copytree(shared / "data" / "konflux-taxonomy", tmp_path / "konflux")
    for path in (tmp_path / "konflux").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (tmp_path / "konflux").chmod(0o755)
    machine = machine_at(tmp_path / "home", tmp_path / "konflux", hub, teacher)
    repository = yaml.safe_load((machine.folder / "qna.yaml").read_text())["document"]["repo"]
    machine.type(f"ilab config set 'where.documents.mirrors' '{{\"{repository}\": \"{machine.folder}\"}}'")
    for block in shown():
        for command, _ in commands(block.text):
            if "crawl" not in command:
                machine.type(command)
    made = json.loads(next(text for command, text in machine.said.items() if command.startswith("jq")))
    assert len(made) == 20
    (last,) = (text for command, text in machine.said.items() if "--input-dir pre-generated" in command)
    assert "train: done" in last and "249 rows" in last
    for question in rows(machine.folder / "pre-generated", "test_*.jsonl"):
        assert f"### {question['user']}" in last
    assert (machine.folder / "models" / "ggml-model-f16.gguf").read_bytes()[:4] == b"GGUF"


def without_llamacpp(machine: Machine, folder: Path) -> Machine:
    """The same machine on which llama.cpp is not installed, neither as a package nor as a program."""
    (folder / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
    programs = machine.environment["PATH"].split(os.pathsep)
    changed = {
        "PYTHONPATH": os.pathsep.join([str(folder), machine.environment.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join(place for place in programs if not (Path(place) / "llama-server").exists()),
    }
    return replace(machine, environment={**machine.environment, **changed})


def ask(address: str, question: str) -> str:
    """The greedy answer of the first model that the server lists."""
    with urllib.request.urlopen(f"{address}/models", timeout=60) as answer:
        name = json.load(answer)["data"][0]["id"]
    body = {"model": name, "messages": [{"role": "user", "content": question}], "max_tokens": 8, "temperature": 0}
    header = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode(), header)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def test_the_model_is_served_and_asked(walked: Machine, tmp_path: Path) -> None:
    """With llama.cpp, where it is installed, and without: the same file answers alike."""
    machines = {"transformers": without_llamacpp(walked, tmp_path)}
    if importlib.util.find_spec("xllamacpp"):
        machines["llama"] = walked
    ((command, _),) = commands(shown("server")[0].text)
    ((chat, lines),) = commands(shown("chat")[0].text)
    question = lines[0].removeprefix("> ")
    answers = {}
    for backend, machine in machines.items():
        with served(machine, command) as address:
            said = machine.type(chat, "".join(f"{line.removeprefix('> ')}\n" for line in lines))
            answers[backend] = ask(address, question)
        assert f"connected to {address}" in said and said.splitlines()[-1].strip(), said
        assert f"served by {backend}" in machine.said[command], machine.said[command]
    assert len(set(answers.values())) == 1 and answers["transformers"], answers

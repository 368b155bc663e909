"""`ilab data generate` itself, in a process of its own, against a real server on loopback that counts what it is asked.

The flow has three stages: each passage gives three questions, each question an answer, each answer a verdict. So n
passages are 7 n calls and 3 n rows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ilab.core.store import RecordFile, Store
from ilab.data import digest_text
from ilab.provenance import Run, find_run
from ilab.testing.teacher import Teacher

IN_FLIGHT = 16
FLOW = """\
name: three
version: 1
branches:
  pairs:
    input: chunk
    blocks:
      - {type: llm, name: ask, prompt: ask.txt, tags: {question: QUESTION}, temperature: 0.7, max_tokens: 300}
      - {type: llm, name: reply, prompt: reply.txt, tags: {answer: ANSWER}, temperature: 0.7, max_tokens: 300}
      - {type: llm, name: judge, prompt: judge.txt, tags: {verdict: VERDICT}, max_tokens: 300}
      - {type: filter, name: supported, column: verdict, operation: eq, value: 'YES'}
"""
PROMPTS = {
    "ask": "Write three questions about {{ domain }}, each as [QUESTION]…[/QUESTION].\n\n{{ document }}",
    "reply": "Answer as [ANSWER]…[/ANSWER].\n\n{{ document }}\n\n{{ question }}",
    "judge": "Is it so? Say [VERDICT]YES[/VERDICT] or NO.\n\n{{ document }}\n\n{{ question }}\n\n{{ answer }}",
}
QNA = """\
version: 3
created_by: tests
domain: towers
document_outline: Towers and their lamps.
document:
  path: texts
seed_examples:
"""
SEED = """\
  - context: The tower {n} has a lamp.
    questions_and_answers:
      - {{question: 'What has tower {n}?', answer: a lamp}}
      - {{question: 'Where is lamp {n}?', answer: 'on tower {n}'}}
      - {{question: 'What is lamp {n}?', answer: 'the lamp of tower {n}'}}
"""


def three_stages(body: dict[str, Any]) -> str:
    """A deterministic teacher: it answers by the prompt and the seed alone, and never twice the same."""
    if "messages" not in body or body.get("max_tokens") == 1:
        return "pong"
    prompt = body["messages"][-1]["content"]
    name = digest_text(f"{prompt} {body.get('seed')}")[:8]
    if prompt.startswith("Write three"):
        return "".join(f"[QUESTION]\nWhat is lamp {name} {n}?\n[/QUESTION]\n" for n in range(3))
    if prompt.startswith("Answer"):
        return f"[ANSWER]\nIt is the lamp {name} of a tower.\n[/ANSWER]"
    return "[VERDICT]YES[/VERDICT]"


def stage(body: dict[str, Any]) -> str:
    """Which block asked."""
    prompt = body["messages"][-1]["content"]
    return next((name for name, text in PROMPTS.items() if prompt.startswith(text[:5])), "?")


@dataclass
class Generating:
    """A folder with a taxonomy, a flow and a store, and the command on them."""

    folder: Path
    store_name: str = "store"
    settings: dict[str, Any] = field(default_factory=lambda: {"in_flight": IN_FLIGHT, "timeout": 30.0})

    def write(self, leaves: int, passages: int) -> Generating:
        for leaf in range(leaves):
            texts = self.leaf(leaf) / "texts"
            texts.mkdir(parents=True)
            (self.leaf(leaf) / "qna.yaml").write_text(QNA + "".join(SEED.format(n=n) for n in range(5)))
            for number in range(passages):
                (texts / f"{number:03}.md").write_text(f"The tower {leaf}.{number} has a lamp of glass and brass.\n")
        (self.folder / "flow").mkdir()
        (self.folder / "flow" / "knowledge.yaml").write_text(FLOW)
        for name, prompt in PROMPTS.items():
            (self.folder / "flow" / f"{name}.txt").write_text(prompt)
        return self

    def leaf(self, number: int) -> Path:
        return self.folder / "taxonomy" / "knowledge" / f"tower{number:02}"

    def beside(self, store: str, **settings: Any) -> Generating:
        """The same with a store of its own, and other settings of the endpoint."""
        return Generating(self.folder, store, {**self.settings, **settings})

    def arguments(self, teacher: Teacher) -> list[str]:
        given = [sys.executable, "-m", "ilab", "--store", str(self.folder / self.store_name)]
        for name, value in self.settings.items():
            given += ["--set", f"where.teacher.{name}={value}"]
        given += ["data", "generate", "--taxonomy-path", str(self.folder / "taxonomy"), "--quiet"]
        given += ["--pipeline", str(self.folder / "flow"), "--endpoint-url", teacher.url, "--model", "teacher"]
        return given

    def environment(self) -> dict[str, str]:
        homes = {name: str(self.folder / "home") for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        return {**os.environ, **homes, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def start(self, teacher: Teacher) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.arguments(teacher),
            env=self.environment(),
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def end(self, teacher: Teacher, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run it to its end, which must be ``code``."""
        done = subprocess.run(
            self.arguments(teacher),
            env=self.environment(),
            cwd=self.folder,
            text=True,
            capture_output=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr
        return done

    def cut(self, teacher: Teacher, calls: int, number: int) -> subprocess.CompletedProcess[str]:
        """Start it, and send it the signal ``number`` once ``calls`` more calls have come in."""
        wanted = len(teacher.calls) + calls
        process = self.start(teacher)
        try:
            deadline = time.monotonic() + 60
            while len(teacher.calls) < wanted and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
        finally:
            process.send_signal(number)
        out, said = process.communicate(timeout=60)
        assert "Traceback" not in said, said
        return subprocess.CompletedProcess(process.args, process.returncode, out, said)

    @property
    def store(self) -> Store:
        return Store(self.folder / self.store_name)

    def run(self) -> Run:
        return find_run(self.store)

    def record(self) -> RecordFile:
        return self.run().record

    def content(self) -> dict[str, bytes]:
        """Every file of the result but its record, byte for byte."""
        record = self.record()
        folder = self.store.contents(record)
        files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
        return {str(name): path.read_bytes() for name, path in files.items() if name.name != "record.json"}

    def journal(self) -> list[Path]:
        """The segments of the teacher's memo."""
        return sorted((self.folder / self.store_name / "memo" / "teacher").glob("*.jsonl"))


def ids(content: dict[str, bytes]) -> list[str]:
    """The ids of the samples, in order."""
    return re.findall(r'^\{"id": ?"([^"]+)"', content["samples.jsonl"].decode(), re.MULTILINE)


@pytest.fixture(scope="session")
def project_in() -> Callable[[Path, int, int], Generating]:
    """A project in a new folder, of so many leaves with so many passages each."""
    return lambda folder, leaves, passages: Generating(folder).write(leaves, passages)


@pytest.fixture
def generating(tmp_path: Path) -> Callable[[int, int], Generating]:
    """The same in the folder of the test."""
    return lambda leaves, passages: Generating(tmp_path).write(leaves, passages)


@pytest.fixture(scope="session")
def teacher_script() -> Callable[[dict[str, Any]], str]:
    return three_stages


@pytest.fixture
def stage_of() -> Callable[[dict[str, Any]], str]:
    return stage


@pytest.fixture
def ids_of() -> Callable[[dict[str, bytes]], list[str]]:
    return ids

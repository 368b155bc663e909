"""A small project and the real command line on it, each command in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ilab.core.events import Event, read_events
from ilab.core.store import RecordFile, Store

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
KILN = "knowledge/technology/devices/tavrin_kiln"
CALENDAR = "compositional_skills/scheduling/calendar_line"
PROJECT = """\
pipeline: quickstart
parameters:
  sdg_repo_url: taxonomy
  output_model_name: small
  sdg_scale_factor: 4
  mix_question_variants: 1
  train_epochs_phase_1: 3
  train_epochs_phase_2: 2
  output_checkpoint_frequency: 1
  eval_num_samples: 10
  # So short a training proves nothing, which the gate says; these two let the build reach package and registry.
  eval_quality_threshold: 0
  gate_on_inconclusive: publish
where:
  threads: 1
"""
# Runs the command line given behind ``--`` after a piece of Python that may watch or break what it does.
PROGRAM = """
import sys
at = sys.argv.index("--")
arguments, sys.argv = sys.argv[1:at], ["ilab", *sys.argv[at + 1:]]
{before}
from ilab.cli.app import run
try:
    run()
finally:
    {after}
"""


@dataclass(frozen=True)
class Project:
    """A folder with an ``ilab.yaml``. Commands get their own home and one thread."""

    root: Path

    @property
    def store(self) -> Store:
        return Store(self.root / ".ilab" / "store")

    def environment(self) -> dict[str, str]:
        home = self.root / "home"
        own = {name: str(home / name.lower()) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return {**os.environ, **own, **threads, "HOME": str(home), "GIT_CONFIG_GLOBAL": os.devnull}

    def ilab(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """``ilab ARGUMENTS`` in the project's folder."""
        return self.python("-m", "ilab", *arguments, **more)

    def python(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        given = {"cwd": self.root, "env": self.environment(), "capture_output": True, "text": True, **more}
        return subprocess.run([sys.executable, *arguments], check=False, **given)

    def instrumented(
        self, *arguments: str, before: str = "", after: str = "pass", given: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """The same between two pieces of Python: ``before``, which may read ``given`` as ``arguments``, and the one-line
        ``after``.
        """
        return self.python("-c", PROGRAM.format(before=before, after=after), *given, "--", *arguments)

    def built(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """``ilab run``, which must succeed."""
        done = self.ilab("run", *arguments, **more)
        assert done.returncode == 0, done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        done = self.ilab("--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def plan(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """What ``ilab plan`` says, by step."""
        return {row["step"]: row for row in self.json("plan", *arguments)}

    def latest(self, step: str) -> RecordFile:
        record = self.store.latest(step)
        assert record is not None, f"{step} was never made"
        return record

    def digests(self) -> dict[tuple[str, str], str]:
        """The digest of every artifact by type and key: what a build has made, all told."""
        return {(record.type, record.key): record.digest for record in self.store.records()}

    def runs(self) -> list[Path]:
        return sorted((self.root / ".ilab" / "store" / "runs").iterdir())

    def events(self) -> list[Event]:
        """The events of the newest run."""
        return read_events(self.runs()[-1] / "events.jsonl")

    def states(self) -> dict[str, str]:
        """How each step of the newest run ended: run, link or reuse."""
        return {event.step: event.data["state"] for event in self.events() if event.kind == "finished"}

    def lines(self, step: str, name: str, leaf: str) -> tuple[list[str], list[str]]:
        """The lines of a JSONL file of the latest result of ``step``: those of ``leaf``, and the others."""
        text = (self.store.contents(self.latest(step)) / name).read_text(encoding="utf-8")
        own = [json.loads(line)["leaf"] == leaf for line in text.splitlines()]
        lines = text.splitlines()
        return (
            [line for line, mine in zip(lines, own, strict=True) if mine],
            [line for line, mine in zip(lines, own, strict=True) if not mine],
        )

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        file.write_text(text.replace(old, new), encoding="utf-8")

    def copy(self, to: Path) -> Project:
        """This project, moved: its runs are those of the new place."""
        shutil.copytree(self.root, to, symlinks=True)
        for note in to.glob(".ilab/store/runs/*/plan.json"):
            note.write_text(note.read_text().replace(str(self.root), str(to)))
        return Project(to)

    def git(self, *arguments: str, at: str = "taxonomy") -> str:
        identity = ("-c", "user.name=A Person", "-c", "user.email=person@example.org", "-c", "init.defaultBranch=main")
        done = subprocess.run(
            ["git", "-C", str(self.root / at), *identity, *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()


def make_project(root: Path) -> Project:
    """Two leaves of the quickstart, one of knowledge and one of a skill, with settings for a build of seconds."""
    for leaf in (KILN, CALENDAR):
        shutil.copytree(EXAMPLE / leaf, root / "taxonomy" / leaf)
    (root / "ilab.yaml").write_text(PROJECT)
    return Project(root)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in which nothing was built."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """One unbroken build, made once, and what it said. Read it, never write to it."""
    project = make_project(tmp_path_factory.mktemp("e2e") / "project")
    return project, project.built()


@pytest.fixture(scope="session")
def reference(first_run: tuple[Project, subprocess.CompletedProcess[str]]) -> Project:
    return first_run[0]


@pytest.fixture
def built(reference: Project, tmp_path: Path) -> Project:
    """A copy of the built project, to do anything with."""
    return reference.copy(tmp_path / "built")

"""The second tutorial as it stands in print: settings, a taxonomy from git, a model from the hub, data from a teacher.

Every command runs in a process of its own, in a home of its own, with the paths that InstructLab has. Only addresses
differ: a bare repository, a hub and a scripted teacher on loopback.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ilab.testing.hub import Repository, TestHub, serve_hub
from ilab.testing.teacher import Teacher, serve

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taxonomy"
KILN = "knowledge/technology/devices/tavrin_kiln"
CALENDAR = "compositional_skills/scheduling/calendar_line"
BASIC = "foundational_skills/logic/dates"  # a root that InstructLab leaves out without a word
MODEL = "mistralai/Mistral-7B-Instruct-v0.3"
DATES = """\
version: 3
task_description: Name the day after a day
created_by: somebody
seed_examples:
- {question: What day comes after Monday?, answer: Tuesday}
- {question: What day comes after Tuesday?, answer: Wednesday}
- {question: What day comes after Thursday?, answer: Friday}
- {question: What day comes after Friday?, answer: Saturday}
- {question: What day comes after Sunday?, answer: Monday}
"""
FILES = {
    "config.json": b'{"model_type": "mistral", "architectures": ["MistralForCausalLM"]}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
}


@dataclass(frozen=True)
class Home:
    """Somebody's home: no variable but HOME says where anything is."""

    root: Path
    hub: TestHub

    @property
    def data(self) -> Path:
        return self.root / ".local" / "share" / "instructlab"

    def ilab(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_"))}
        environment |= {"HOME": str(self.root), "HF_ENDPOINT": self.hub.url, "OMP_NUM_THREADS": "1"}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "COLUMNS": "200"}
        command = [sys.executable, "-m", "ilab", *arguments]
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=A Person", "-c", "user.email=person@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """The address of a taxonomy with one leaf of knowledge, and one below a folder that other tools leave out."""
    work, bare = tmp_path / "work", tmp_path / "taxonomy.git"
    shutil.copytree(EXAMPLE / KILN, work / KILN)
    git(work, "init", "--quiet")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "a taxonomy")
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(bare))
    return bare.as_uri()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with serve_hub({MODEL: Repository(FILES)}) as hub:
        (tmp_path / "home").mkdir()
        yield Home(tmp_path / "home", hub)


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    with serve(models=("teacher",)) as running:
        yield running


def test_walkthrough(home: Home, repository: str, teacher: Teacher, tmp_path: Path) -> None:
    made = home.ilab("config", "init", "--non-interactive", "--repository", repository)
    taxonomy = home.data / "taxonomy"
    assert str(home.root / ".config" / "instructlab" / "config.yaml") in made.stdout
    assert (taxonomy / KILN / "qna.yaml").is_file()

    edit(taxonomy)
    diff = home.ilab("taxonomy", "diff")
    assert diff.stdout.splitlines() == [
        f"{CALENDAR}/qna.yaml",
        f"{BASIC}/qna.yaml",
        f"{KILN}/qna.yaml",
        f"Taxonomy in {taxonomy} is valid :)",
    ]

    home.ilab("model", "download", "--repository", MODEL)
    place = home.root / ".cache" / "instructlab" / "models" / MODEL
    assert {file.name: file.read_bytes() for file in place.iterdir()} == FILES
    assert MODEL in home.ilab("model", "list").stdout

    output = tmp_path / "generated"
    home.ilab(
        "data", "generate", "--endpoint-url", teacher.url, "--sdg-scale-factor", "1", "--pipeline", "simple",
        "--model", "teacher", "--output-dir", str(output),
    )  # fmt: skip
    check_files(output)
    assert {call["model"] for call in teacher.calls} == {"teacher"}


def edit(taxonomy: Path) -> None:
    """A person's work: a leaf that is changed, and a new one."""
    leaf = taxonomy / KILN / "qna.yaml"
    leaf.write_text(leaf.read_text().replace("created_by: ", "created_by: new-", 1))
    shutil.copytree(EXAMPLE / CALENDAR, taxonomy / CALENDAR)
    (taxonomy / BASIC).mkdir(parents=True)
    (taxonomy / BASIC / "qna.yaml").write_text(DATES)
    (taxonomy / "ideas").mkdir()
    (taxonomy / "ideas" / "qna.yaml").write_text(DATES)


def check_files(output: Path) -> None:
    """The files that InstructLab's trainers look for, by their names."""
    (folder,) = output.iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}", folder.name)
    stamp = next(folder.glob("train_*")).stem.removeprefix("train_")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d_\d\d_\d\d", stamp)
    kiln, calendar, basic = (leaf.replace("/", "_") for leaf in (KILN, CALENDAR, BASIC))
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {f"{part}_{stamp}.jsonl" for part in ("train", "test", "messages")}
    expected |= {f"{phase}_train_msgs_{stamp}.jsonl" for phase in ("knowledge", "skills")}
    expected |= {f"{phase}_recipe_{stamp}.yaml" for phase in ("knowledge", "skills")}
    expected |= {f"{part}_{stamp}/{leaf}.jsonl" for part in ("preprocessed", "generated") for leaf in (kiln, basic)}
    expected |= {f"node_datasets_{stamp}/{name}.jsonl" for name in (f"{kiln}_p07", f"{kiln}_p10", calendar, basic)}
    assert expected <= found
    rows = [json.loads(line) for line in (folder / f"skills_train_msgs_{stamp}.jsonl").read_text().splitlines()]
    assert rows and all(set(row) == {"messages", "metadata", "id", "unmask"} for row in rows)

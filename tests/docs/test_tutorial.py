"""Runs what the tutorial and the how-to guides show, in a copy of the quickstart with very small settings.

    ```console             each `$ ` line is a command; a line below it that is no command is output it must print
    ```console exit=2      the block's last command must end with that exit code
    ```yaml file=PATH      the block is written to that file of the project (any language)
    ```python              the block is run as a script in the project's folder

In an expected line `…` stands for anything, so figures that depend on the settings can be left out. Other blocks
(`sh`, `text`) are for the reader alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs/tutorial").glob("*.md"), *(ROOT / "docs/how-to").glob("*.md")])
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = {
    "sdg_scale_factor": 1,
    "mix_question_variants": 1,
    "train_epochs_phase_1": 1,
    "train_epochs_phase_2": 1,
    "output_checkpoint_frequency": 1,
    "eval_num_samples": 3,
    # So small a model learns nothing: let it through, for what stands behind the gate must be tried too.
    "eval_quality_threshold": 0,
    "gate_on_inconclusive": "publish",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the settings behind it, its text and its 1-based line on the page."""

    language: str
    settings: dict[str, str]
    text: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        settings = dict(part.split("=", 1) for part in match[2].split())
        yield Block(match[1], settings, match[3], text.count("\n", 0, match.start()) + 1)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines it must print."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        elif line.strip():
            found[-1][1].append(line)
    return found


def is_printed(expected: str, output: str) -> bool:
    """Whether a line of ``output`` has all parts of ``expected`` between its `…`, in order. Blanks count as one."""
    parts = [re.escape(" ".join(part.split())) for part in expected.split("…")]
    pattern = re.compile(".*".join(parts))
    return any(pattern.search(" ".join(line.split())) for line in output.splitlines())


def run(command: list[str], project: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command,
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def perform(block: Block, project: Path, page: str) -> None:
    """Do what a block says; fail with the page's line when it does not come out so."""
    at = f"{page}:{block.line}"
    if "file" in block.settings:
        path = project / block.settings["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        done = run([sys.executable, "-c", block.text], project)
        assert done.returncode == 0, f"{at}\n{done.stdout}"
    elif block.language == "console":
        shown = commands(block.text)
        for number, (command, expected) in enumerate(shown, 1):
            code = int(block.settings.get("exit", "0")) if number == len(shown) else 0
            done = run(["bash", "-o", "pipefail", "-c", command], project)
            assert done.returncode == code, f"{at}: `{command}` ended with {done.returncode}\n{done.stdout}"
            for line in expected:
                assert is_printed(line, done.stdout), f"{at}: `{command}` does not print `{line}`, but\n{done.stdout}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the quickstart without results, with settings that train for seconds."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "examples/quickstart", folder, ignore=shutil.ignore_patterns(".ilab"))
    config = yaml.safe_load((folder / "ilab.yaml").read_text(encoding="utf-8"))
    config["parameters"] |= SMALL
    config["where"] = {"threads": 1}
    (folder / "ilab.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_page_does_what_it_says(page: Path, project: Path) -> None:
    found = list(blocks(page.read_text(encoding="utf-8")))
    assert found, "a page to work by has something to type"
    for block in found:
        perform(block, project, str(page.relative_to(ROOT)))


def test_wrong_output_is_noticed() -> None:
    assert is_printed("train-phase-1 … reused (same contents) …", "x train-phase-1:   reused (same contents): 9 rows")
    assert not is_printed("train-phase-1 … reused", "train-phase-1: done\ntrain-phase-2: reused")


def test_wrong_exit_code_is_noticed(project: Path) -> None:
    perform(Block("console", {"exit": "3"}, "$ exit 3\n", 1), project, "page")
    with pytest.raises(AssertionError, match="page:1: `exit 3` ended with 3"):
        perform(Block("console", {}, "$ exit 3\n", 1), project, "page")

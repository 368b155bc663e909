"""Tasks that need lm-evaluation-harness itself: run by it, in a process of its own, where it is installed.

    pip install 'ilab[harness]'

The harness runs Python code that task files name and may load data sets from the hub. So it is never started for a
task that can be read here, it gets no caches of its own (they have answered for another model), and it is kept offline
unless ``online`` says otherwise. Its results are taken over as they are: score and standard error of each task.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ilab.errors import InputError, ServiceError, SetupError
from ilab.evaluation.benchmarks.result import BenchmarkResult, Group

BENCHMARK = "tasks"
PACKAGE = "lm-eval"
TAIL = 600  # characters of the harness' last words that are shown
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class HarnessRun:
    """What the harness is to do: ``tasks`` by name or by the folder of their files, with the model in ``folder``."""

    model: str
    folder: Path
    tasks: tuple[str, ...]
    include: Path | None = None
    shots: int | None = None
    batch: str = "auto"
    device: str = "cpu"
    limit: int | None = None
    seed: int = 0
    chat: bool = False
    online: bool = False

    def arguments(self, out: Path) -> list[str]:
        """The harness' command line."""
        words = [sys.executable, "-m", "lm_eval", "run", "--model", "hf"]
        words += ["--model_args", f"pretrained={self.folder.resolve()},trust_remote_code=False"]
        words += ["--tasks", ",".join(self.tasks), "--output_path", str(out)]
        words += ["--batch_size", "8" if self.batch == "auto" else self.batch, "--device", self.device]
        words += ["--seed", str(self.seed)]
        words += ["--include_path", str(self.include.resolve())] if self.include else []
        words += ["--num_fewshot", str(self.shots)] if self.shots is not None else []
        words += ["--limit", str(self.limit)] if self.limit else []
        words += ["--apply_chat_template"] if self.chat else []
        return words


def run_harness(run: HarnessRun, reason: str) -> BenchmarkResult:
    """Run it and take over what it says. ``reason`` is why it is needed.

    Raises ``SetupError`` where the harness is not installed, ``ServiceError`` where it fails.
    """
    version = harness_version()
    if version is None:
        raise SetupError(
            f"this task needs lm-evaluation-harness: {reason}",
            hint="pip install 'ilab[harness]', then the same command",
        )
    if "," in str(run.folder.resolve()):  # its arguments are split there
        raise InputError("the model's path holds a comma, which the harness cannot take", where=str(run.folder))
    with tempfile.TemporaryDirectory(prefix="ilab-harness-") as scratch:
        out = Path(scratch)
        environment = {**os.environ, **({} if run.online else OFFLINE)}
        done = subprocess.run(
            run.arguments(out), cwd=run.include or out, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = done.stderr.strip()[-TAIL:]
            raise ServiceError(f"lm-evaluation-harness {version} failed: {words}", hint="run it by hand to see more")
        files = sorted(out.rglob("results_*.json"))
        if not files:
            raise ServiceError(f"lm-evaluation-harness {version} wrote no result", hint="run it by hand to see more")
        return taken_over(json.loads(files[-1].read_text(encoding="utf-8")), run.model, version)


def harness_version() -> str | None:
    """The installed version, ``None`` where there is none. Nothing is imported."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def taken_over(results: Mapping[str, Any], model: str, version: str) -> BenchmarkResult:
    """The harness' result file as ours: a group for each task, its first metric as the score.

    Metrics that are no share (perplexity) are left out and noted: they have no place on the scale.
    """
    groups, notes, kinds = [], [], []
    subtasks = results.get("group_subtasks") or {}
    for name, figures in sorted((results.get("results") or {}).items()):
        if subtasks.get(name):
            continue  # a group of the harness': its parts are here
        found = _first_share(figures)
        if found is None:
            notes.append(f"{name}: no metric between 0 and 1")
            continue
        metric, value, error = found
        kinds.append(f"{name}: {metric}")
        count = (results.get("n-samples") or {}).get(name) or {}
        groups.append(Group(name=name, score=value, standard_error=error, n=int(count.get("effective", 0))))
    scores = [group.score for group in groups if group.score is not None]
    total = sum(group.n for group in groups)
    macro = round(math.fsum(scores) / len(scores), 6) if scores else None
    weighted = math.fsum((group.score or 0.0) * group.n for group in groups)
    return BenchmarkResult(
        benchmark=BENCHMARK,
        model=model,
        scale=(0.0, 1.0),
        score=macro,
        micro=round(weighted / total, 6) if total else None,
        macro=macro,
        how=f"by lm-evaluation-harness {version}; plain mean of the tasks ({', '.join(kinds)})",
        n=total,
        groups=tuple(groups),
        notes=tuple(notes),
    )


def _first_share(figures: Mapping[str, Any]) -> tuple[str, float, float | None] | None:
    """Name, value and standard error of the first metric in 0..1."""
    named: Sequence[str] = [key for key in figures if "," in key and "_stderr" not in key]
    for key in named:
        metric, _, kind = key.partition(",")
        value, error = figures[key], figures.get(f"{metric}_stderr,{kind}")
        if isinstance(value, (int, float)) and 0 <= value <= 1:
            known = isinstance(error, (int, float)) and math.isfinite(error)
            return metric, round(float(value), 6), round(float(error or 0.0), 6) if known else None
    return None

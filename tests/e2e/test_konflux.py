"""Real input, written by other people for another tool: an old-style qna.yaml and 38 pages of product documentation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ilab.core.files import read_json

URL = "https://github.com/bbrowning/konflux-taxonomy.git"
PROJECT = """\
pipeline: quickstart
parameters:
  sdg_repo_url: source/qna.yaml
  sdg_scale_factor: 2
  mix_question_variants: 1
  train_epochs_phase_1: 1
  train_epochs_phase_2: 1
  output_checkpoint_frequency: 1
  eval_num_samples: 20
  output_model_name: konflux
where:
  threads: 1
  documents:
    mirrors:
      {url}: source
"""


@pytest.mark.long
def test_a_real_taxonomy_runs_to_a_report(project: Any, shared: Path) -> None:
    source = project.root / "source"
    shutil.copytree(shared / "data" / "konflux-taxonomy", source)
    project.git("init", "--quiet", at="source")
    project.git("add", "--all", at="source")
    project.git("commit", "--quiet", "--message", "as published", at="source")
    (project.root / "ilab.yaml").write_text(PROJECT.format(url=URL))

    done = project.ilab("--json", "run")
    assert done.returncode in (0, 5), done.stderr
    assert "Traceback" not in done.stderr
    page = Path(project.json("report", "open")["report"])
    assert page.stat().st_size < 1_000_000
    twin = read_json(page.with_suffix(".json"))
    (leaf,) = twin["cards"]["samples"]["leaves"]
    assert leaf in page.read_text(encoding="utf-8")
    assert {row["name"] for row in twin["summary"]} >= {leaf}
    assert twin["counts"]["samples"] > 500

    documents = project.latest("documents")
    assert documents.counts["documents"] == 38
    commit = project.git("rev-parse", "HEAD", at="source")
    assert any(commit in found["revision"] for found in documents.found.values())
    own, others = project.lines("generate", "samples.jsonl", leaf)
    assert others == [] and len(own) == twin["counts"]["samples"]

"""The tasks of the compiled pipeline, run by kfp itself on this machine: the same keys and bytes as the local engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pods_apart import ALONE, elsewhere

from ilab.core.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
TAXONOMY = REPOSITORY / "examples" / "quickstart" / "taxonomy"
GIVEN = {
    "sdg_repo_url": str(TAXONOMY),
    "output_model_name": "small",
    "sdg_scale_factor": 4,
    "mix_question_variants": 1,
    "train_epochs_phase_1": 2,
    "train_epochs_phase_2": 1,
    "eval_num_samples": 6,
    "eval_quality_threshold": 0.0,
    "gate_on_inconclusive": "publish",
    "train_gpu_per_worker": 0,
    "output_save_checkpoints": True,
}
PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from kfp import local
sys.path.insert(0, {tests!r})
from on_kubeflow import made, shipped
from ilab.core.pipeline import part
from ilab.kubeflow.definition import Target
given, store, root, last, own = json.loads(sys.argv[1]), *sys.argv[2:6]
{apart}
target = Target("python", store=store, at_exit=False, root=own)
local.init(local.SubprocessRunner(use_venv=False), workspace_root=root + "/workspace", pipeline_root=root + "/outputs")
pipeline = part(shipped("quickstart"), last) if last else shipped("quickstart")
task = made(pipeline, target=target)(**given)
"""


def run(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    home = cwd / "home"
    own = {name: str(home / name.lower()) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    environment = {**os.environ, **own, "HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def digests(store: Path) -> dict[tuple[str, str], str]:
    return {(record.type, record.key): record.digest for record in Store(store).records()}


def on_kubeflow(
    given: dict[str, Any], store: Path | str, root: Path, last: str = "", *, apart: bool = False
) -> subprocess.CompletedProcess[str]:
    """The quickstart's pipeline by kfp, or it as far as the first step of the type ``last``.

    ``apart``: as pods with a volume each do, every task begins with nothing but its inputs.
    """
    root.mkdir(exist_ok=True)
    program = PROGRAM.format(tests=str(REPOSITORY / "tests" / "core"), apart=ALONE if apart else "")
    more = {"XDG_CACHE_HOME": ""} if apart else {}
    own = str(root / "own")
    return run("-c", program, json.dumps(given), str(store), str(root), last, own, cwd=root, **more)


@pytest.mark.long
def test_a_build_begun_here_is_finished_by_kubeflows_tasks(tmp_path: Path) -> None:
    """One folder is built here; another here as far as phase 1, then by kfp: both stores hold the same."""
    folders = [tmp_path / "here", tmp_path / "moved"]
    for folder in folders:
        folder.mkdir()
        settings = {"pipeline": "quickstart", "parameters": GIVEN, "where": {"threads": 1}}
        (folder / "ilab.yaml").write_text(yaml.safe_dump(settings))
    done = run("-m", "ilab", "run", cwd=folders[0])
    assert done.returncode == 0, done.stderr
    done = run("-m", "ilab", "run", "--until", "mix-knowledge", cwd=folders[1])
    assert done.returncode == 0, done.stderr
    store = folders[1] / ".ilab" / "store"
    before = {record.key: record.started for record in Store(store).records()}
    done = on_kubeflow(GIVEN, store, tmp_path / "kfp")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert digests(store) == digests(folders[0] / ".ilab" / "store")
    after = {record.key: record.started for record in Store(store).records()}
    assert {key: after[key] for key in before} == before, "what was made before is reused"
    outputs = next((tmp_path / "kfp" / "outputs").glob("*/results"))
    assert (outputs / "trained_model" / "model.safetensors").is_file()
    assert list((outputs / "artifacts" / "checkpoints" / "train-phase-1").glob("*/model.safetensors"))
    assert (outputs / "training_logs" / "train-phase-1.jsonl").is_file()
    assert json.loads((outputs / "evaluation_results" / "report.json").read_text())["gate"]
    assert (outputs / "report").read_text().lstrip().lower().startswith("<!doctype html")


def test_with_a_store_in_a_bucket_nothing_else_is_shared(
    tmp_path: Path, bucket: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """What outlives a task is in the bucket: its result, and the plan that the run's last task looks into."""
    from ilab.kubeflow import tasks
    from ilab.kubeflow.kept import Kept

    root = tmp_path / "kfp"
    done = on_kubeflow({**GIVEN, **elsewhere(tmp_path, bucket)}, "s3://runs/here", root, "documents", apart=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    names = {one.key for one in bucket.objects.all()}
    for step in ("taxonomy", "documents"):
        assert any(name.startswith(f"here/{step}/") and name.endswith("/record.json") for name in names)
    run_id = next(name.split("/")[2] for name in names if name.startswith("here/kubeflow/"))
    assert {f"here/kubeflow/{run_id}/{name}" for name in tasks.KEPT} <= names
    assert not (root / "workspace").exists() or not list((root / "workspace").iterdir())
    shutil.rmtree(root / "own")  # every pod had its own
    tasks.finish(Kept("s3://runs/here", str(root / "own"), run_id), "a-map", "SUCCEEDED", "")
    assert "made: 2 of 2 steps" in capsys.readouterr().out
    tasks.finish(Kept("s3://runs/here", str(root / "own"), "another"), "a-map", "FAILED", "no pod")
    assert "the run ended: FAILED: no pod\nnothing was planned" in capsys.readouterr().out


@pytest.mark.long
def test_a_whole_build_in_pods_that_share_nothing(tmp_path: Path, bucket: Any) -> None:
    """Every task begins with an empty volume: plan, settings and bucket are enough, and nothing is made twice."""
    root = tmp_path / "kfp"
    done = on_kubeflow({**GIVEN, **elsewhere(tmp_path, bucket)}, "s3://runs/here", root, apart=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    outputs = next((root / "outputs").glob("*/results"))
    assert (outputs / "trained_model" / "model.safetensors").is_file()
    assert json.loads((outputs / "evaluation_results" / "report.json").read_text())["gate"]
    assert list((outputs / "artifacts" / "checkpoints" / "train-phase-1").glob("*/model.safetensors"))
    plan = json.loads((outputs / "artifacts" / "plan.json").read_text())
    names = {one.key for one in bucket.objects.all()}
    made = {step["name"] for step in plan["steps"] if f"here/{step['type']}/{step['key']}/record.json" in names}
    assert made == {step["name"] for step in plan["steps"]}
    assert "here/registry.sqlite" in names

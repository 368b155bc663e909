#!/usr/bin/env python3
"""Write what the parameter table says into the deployment, or check that it stands there.

    deploy/generate.py           write
    deploy/generate.py --check   exit 1 where something is not up to date

The ConfigMap holds the parameters that the overview of the pipeline names: what is the same everywhere in the base, the
others in the overlays. What each run has to say itself (base model, taxonomy, target) has no default and is in neither;
any other parameter may be added by `oc patch`. ``pipeline-parameters.env`` is what ``ilab pipeline params --env-file``
writes, ``pipeline.yaml`` what ``ilab pipeline compile`` does.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilab.parameters import BY_NAME, TABLE
from ilab.parameters.files import CONFIG_MAP, as_text, as_variables
from ilab.parameters.parameter import Environment

HERE = Path(__file__).parent
IMAGE = "quay.io/your-organization/ilab:0.1.0"  # write yours over it: ilab pipeline compile --image …
MARK = "configMapGenerator:\n"
SHOWN = (
    "output_oci_registry_secret", "output_model_name", "output_model_version", "k8s_storage_class_name",
    "train_gpu_identifier", "train_num_workers", "sdg_scale_factor", "sdg_batch_size", "sdg_num_workers",
    "sdg_random_seed", "sdg_quality_threshold", "train_epochs_phase_1", "train_epochs_phase_2", "train_learning_rate",
    "train_batch_size", "train_gradient_accumulation_steps", "train_sequence_length", "train_memory_per_worker",
    "train_cpu_limit", "eval_num_samples", "eval_batch_size", "eval_metrics", "eval_quality_threshold",
    "k8s_node_selector", "k8s_tolerations", "k8s_storage_size", "k8s_worker_resources", "output_save_checkpoints",
    "output_checkpoint_frequency", "output_save_metrics", "output_metrics_format", "sdg_teacher_secret",
    "eval_judge_secret", "sdg_repo_secret",
)  # fmt: skip


def pages() -> dict[Path, str]:
    """Every file that is written here, with its text."""
    shown = [BY_NAME[name] for name in SHOWN]
    same = {one.name: one.default for one in shown if one.default_in("prod") == one.default}
    made = {HERE / "base/kustomization.yaml": _literals(HERE / "base/kustomization.yaml", same, merge=False)}
    environments: tuple[Environment, ...] = ("dev", "prod")
    for environment in environments:
        path = HERE / "overlays" / environment / "kustomization.yaml"
        other = {one.name: one.default_in(environment) for one in shown if one.name not in same}
        made[path] = _literals(path, other, merge=True)
    made[HERE / "pipeline-parameters.env"] = as_variables({one.name: one.default for one in TABLE})
    made[HERE / "pipeline.yaml"] = _compiled()
    return made


def _compiled() -> str:
    """The default pipeline for Kubeflow, as `ilab pipeline compile --image …` writes it."""
    from ilab.actions import find_pipeline
    from ilab.core.pipeline import read_pipeline
    from ilab.kubeflow.client import need_kfp
    from ilab.kubeflow.definition import Target, compile_to, kubeflow_pipeline
    from ilab.parameters import collect
    from ilab.parameters.infrastructure import cluster

    need_kfp()
    path = find_pipeline("instructlab", HERE)
    pipeline = read_pipeline(path, lambda name: find_pipeline(name, HERE))
    values = {name: one.value for name, one in collect({pipeline.path: pipeline.parameters}).items()}
    with tempfile.TemporaryDirectory() as folder:
        compile_to(Path(folder, "pipeline.yaml"), kubeflow_pipeline(pipeline, values, cluster(values), Target(IMAGE)))
        return Path(folder, "pipeline.yaml").read_text(encoding="utf-8")


def _literals(path: Path, values: Mapping[str, Any], *, merge: bool) -> str:
    head = path.read_text(encoding="utf-8").partition(MARK)[0]
    lines = ["  # Written by deploy/generate.py from the table of parameters.", f"  - name: {CONFIG_MAP}"]
    lines += ["    behavior: merge"] if merge else []
    # A literal in JSON's quotes is one in YAML's: commas and braces stay as they are.
    lines += ["    literals:", *(f"      - {_quoted(f'{name}={as_text(value)}')}" for name, value in values.items())]
    return head + MARK + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text) if set(text) & set('"{}[]#&*!|>%@`') or text.endswith("=") else text


def run(arguments: list[str]) -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if arguments == ["--check"]:
        for path in stale:
            sys.stderr.write(f"{path} is not up to date: deploy/generate.py\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages()[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

"""The keys of the shipped pipelines, as a golden file: a change of identity is visible in review.

After a change that is meant: `UPDATE_GOLDEN=1 python -m pytest tests/core/test_keys.py`, and say in the commit why
results made before are not reused any more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ilab.actions import find_pipeline
from ilab.core.pipeline import Plan, build, read_pipeline
from ilab.core.step import Found
from ilab.parameters import collect, derive
from ilab.steps import STEPS

GOLDEN = Path(__file__).parent.parent / "golden" / "keys.json"


def plan(name: str, **changes: object) -> Plan:
    pipeline = read_pipeline(find_pipeline(name, Path()), lambda parent: find_pipeline(parent, Path()))
    given = {"sdg_repo_url": "taxonomy", "sdg_base_model": "base", "sdg_pipeline": "flow", **changes}
    values = {key: one.value for key, one in collect({"file": pipeline.parameters, "test": given}).items()}
    kinds = {resolve.by for step in STEPS.values() for resolve in step.resolvable().values()} - {"taxonomy"}
    resolvers = {kind: (lambda locator, kind=kind: Found(f"{kind}:{locator}", locator)) for kind in kinds}
    since = "" if values["taxonomy_base"] == "empty" else f":{values['taxonomy_base']}"  # which leaves are meant
    most = f":{values['sdg_max_tokens']}" if values["sdg_max_tokens"] else ""  # of a flow's answers
    resolvers["flow"] = lambda locator: Found(f"flow:{locator}{most}", locator)
    resolvers["taxonomy"] = lambda locator: Found(f"taxonomy:{locator}{since}", locator)
    return build(pipeline, STEPS, derive(values), resolvers)


def test_the_keys_of_the_shipped_pipelines_are_the_golden_ones() -> None:
    keys = {
        name: {step: f"{one.step.type}/{one.key}" for step, one in plan(name).steps.items()}
        for name in ("instructlab", "quickstart")
    }
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(keys, indent=2) + "\n")
    assert keys == json.loads(GOLDEN.read_text())


WHERE: dict[str, object] = {  # other values than the defaults, of parameters of that kind
    "eval_gpu_identifier": "amd.com/gpu",
    "eval_judge_secret": "another",
    "final_eval_batch_size": "auto",
    "final_eval_max_workers": "3",
    "k8s_node_selector": '{"disk": "ssd"}',
    "k8s_storage_class_name": "fast",
    "k8s_storage_size": "7Gi",
    "k8s_tolerations": '[{"key": "gpu", "operator": "Exists"}]',
    "k8s_worker_resources": '{"cpu": "1"}',
    "mt_bench_max_workers": "3",
    "output_metrics_format": "csv",
    "output_oci_model_uri": "registry.example/model:1",
    "output_model_registry_api_url": "https://registry.example",
    "output_model_registry_name": "models",
    "output_oci_registry_secret": "another",
    "output_save_checkpoints": True,
    "output_save_metrics": False,
    "sdg_repo_secret": "another",
    "sdg_teacher_secret": "another",
    "train_gpu_identifier": "amd.com/gpu",
    "train_memory_per_worker": "7Gi",
    "train_node_selectors": '{"disk": "nvme"}',
    "train_tolerations": '[{"key": "gpu", "operator": "Exists"}]',
}


def test_every_where_parameter_changes_what_a_cluster_or_the_steps_get(tmp_path: Path) -> None:
    """Apart from what is written beside the report: `output_save_…` and its format (tests/e2e)."""
    from ilab.config import load
    from ilab.parameters import TABLE
    from ilab.parameters.infrastructure import cluster
    from ilab.where import where_for

    (tmp_path / "ilab.yaml").write_text("where: {teacher: {url: 'http://127.0.0.1:1/v1'}}\n")
    loaded = load(tmp_path, user=None)

    def told(**changes: object) -> tuple[object, object]:
        values = {name: one.value for name, one in collect({"test": changes}).items()}
        return where_for(loaded, values), cluster(values)

    before = told()
    beside_the_report = ("output_save_checkpoints", "output_save_metrics", "output_metrics_format")
    for parameter in TABLE:
        if parameter.kind == "where" and parameter.name not in beside_the_report:
            value = WHERE.get(parameter.name) or parameter.default + 3
            assert told(**{parameter.name: value}) != before, parameter.name


def test_every_what_parameter_changes_a_key_and_no_where_parameter_does() -> None:
    from ilab.parameters import TABLE

    git = "https://git.example/taxonomy.git"

    def keys(**changes: object) -> dict[str, str]:
        return {name: one.key for name, one in plan("instructlab", **changes).steps.items()}

    before = keys()
    other = {
        "sdg_repo_url": "elsewhere",
        "sdg_base_model": "another",
        "sdg_pipeline": "other-flow",
        "sdg_teacher_model": "someone",
        "train_schedule": "cosine",
        "train_select": "loss",
        "train_precision": "bf16",
        "eval_metrics": "accuracy",
        "eval_judge_model": "someone",
        "eval_judge_marks": "marks.csv",
        "eval_open_book": False,
        "eval_general": "mine.jsonl",
        "mt_bench_questions": "mine.jsonl",
        "previous_model": "registry",
        "gate_score": "lower",
        "publish_anyway": True,
        "gate_on_inconclusive": "publish",
        "output_model_name": "other",
        "output_model_version": "9.9.9",
        "output_format": "modelpack",
        "output_modelcar_base_image": "an-image",
        "output_license": "MIT",
        "output_gguf": "q8_0",
        "output_oci_registry_secret": "another",
        "taxonomy_base": "main",
        "chunk_tokenizer": "another",
        "document_policy": "drop",
        "document_converter": "docling",
        "mix_sampling_size": "30",
        "train_method": "lora",
        "train_chat_template": "granite",
        "train_on": "all",
        "train_over_length": "split",
        "train_lora_targets": "q_proj",
        "train_lora_variant": "dora",
        "train_optimizer": "adamw_8bit",
        "train_osft_share": 0.5,
        "sdg_teacher_family": "qwen",
        "sdg_verifier_model": "someone-else",
        "eval_items": "teacher",
        "sdg_benchmarks": "mmlu",
        "sdg_repo_branch": "main",
        "sdg_max_batch_len": 100,
        "sdg_mix_recipe": "skills.yaml",
        "sdg_mix_recipe_knowledge": "knowledge.yaml",
        **WHERE,
    }
    together: dict[str, dict[str, object]] = {
        "eval_items_per_chunk": {"eval_items": "teacher"},
        "sdg_repo_branch": {"sdg_repo_url": git},
        "sdg_repo_pr": {"sdg_repo_url": git},
    }
    for parameter in TABLE:
        value = other.get(parameter.name)
        if value is None:
            value = 0.25 if parameter.type is float else (parameter.default or 1) + 3
        others = together.get(parameter.name, {})
        without = keys(**others) if others else before
        after = keys(**others, **{parameter.name: value})
        assert (after != without) is (parameter.kind == "what"), parameter.name


def test_the_quickstart_is_the_default_pipeline_with_other_settings() -> None:
    default, quick = plan("instructlab"), plan("quickstart")
    assert list(default.steps) == list(quick.steps)
    for name, one in default.steps.items():
        assert one.step.type == quick.steps[name].step.type
        assert one.inputs == quick.steps[name].inputs

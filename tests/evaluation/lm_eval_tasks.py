"""What lm-evaluation-harness makes of tasks: prompts, likelihoods and scores, written down once for the tests.

    PYTHONPATH=src python tests/evaluation/lm_eval_tasks.py make DIR     with ilab: tasks and a tiny model
    OTHER/bin/python tests/evaluation/lm_eval_tasks.py dump DIR          with lm-eval 0.4.13 alone: lm_eval_tasks.json

The tests make the same folder with ``make`` and compare: tasks that ``ilab evaluate export-tasks`` wrote, tasks of one's
own, and MMLU's own form with and without shots, chat template and system text.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

RESULT = Path(__file__).with_suffix(".json")
THINGS = ["lock", "weir", "bridge", "tower", "mill", "quay"]
PLACES = ["Vellsay", "Elmsund", "Größau", "Kalvø", "東京"]
SYSTEM = "You know this canal well."
MMLU_RUNS = [(shots, chat, system) for shots in (0, 5) for chat in (False, True) for system in ("", SYSTEM)]
OWN_TASKS = {
    "texts": """task: texts
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {data_files: {test: texts.jsonl, dev: texts.dev.jsonl}}
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
num_fewshot: 2
description: "About {{subject}}.\\n\\n"
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_bytes, aggregation: mean, higher_is_better: true}
""",
    "table": """task: table
output_type: multiple_choice
dataset_path: csv
dataset_kwargs: {data_files: {test: table.csv}}
test_split: test
doc_to_text: question
doc_to_choice: ["wide", "deep", "old"]
doc_to_target: "{{answer}}"
target_delimiter: ": "
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "written": """task: written
output_type: generate_until
dataset_path: json
dataset_kwargs: {data_files: {test: written.jsonl}}
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["e", "\\n"], do_sample: false, max_gen_toks: 12}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: true}
""",
    "mmlu_test": """task: mmlu_test
dataset_path: json
dataset_kwargs: {data_files: {test: mmlu.jsonl, dev: mmlu.dev.jsonl}}
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
output_type: multiple_choice
description: "The following are multiple choice questions (with answers) about canal building.\\n\\n"
doc_to_text: "{{question.strip()}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
}


def questions(count: int, seed: int) -> list[dict[str, Any]]:
    draw, made = random.Random(seed), []
    for number in range(count):
        thing, place = draw.choice(THINGS), draw.choice(PLACES)
        options = [
            f"{size} {unit}"
            for size, unit in zip(draw.sample(range(3, 400), 4), ("feet", "m", "ells and a bit", "m"), strict=True)
        ]
        question = (
            f"How wide is {thing} {number} of {place}? "
            if number % 3 == 0
            else f"How wide is {thing} {number} of {place}?"
        )
        made.append(
            {"question": question, "choices": options, "answer": draw.randrange(4), "subject": "canal_building"}
        )
    return made


def items() -> list[Any]:
    """Held-out items of three leaves: four and three options, shots, a context, written answers, one of them bad."""
    from ilab.data import Item

    made = []
    for leaf, count, size in (("knowledge/canal", 9, 4), ("knowledge/weir gates", 6, 3)):
        for number, row in enumerate(questions(count, size)):
            options = tuple(row["choices"][:size])
            split = "dev" if leaf == "knowledge/canal" and number < 3 else "test"
            context = "The canal is old." if number == 4 else None
            fields = {"leaf": leaf, "split": split, "question": row["question"], "context": context}
            gold = options[row["answer"] % size]
            made.append(
                Item(id=f"{leaf}/eval/{number}", kind="mcq", options=options, gold=gold, cluster=str(number), **fields)
            )
    for number in range(3):
        made.append(
            Item(
                id=f"skills/count/eval/{number}", leaf="skills/count", split="test", kind="exact", cluster=str(number),
                question=f"What is {number} and {number}?", gold=str(2 * number),
            )
        )  # fmt: skip
    return made


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def make(folder: Path) -> Path:
    """Write ``ilab/`` (exported), ``own/`` (tasks of one's own), ``mmlu/`` and ``model/`` into ``folder``."""
    from safetensors.torch import load_file, save_file

    from ilab.evaluation.benchmarks.export_tasks import export_tasks
    from ilab.training.tiny import TinySpec, make_tiny

    export_tasks(items(), folder / "ilab", seed=7)
    for name, text in OWN_TASKS.items():
        where = folder / ("mmlu" if name == "mmlu_test" else "own")
        where.mkdir(parents=True, exist_ok=True)
        (where / f"{name}.yaml").write_text(text, encoding="utf-8")
    own = folder / "own"
    (own / "texts.jsonl").write_text(lines(questions(8, 1)), encoding="utf-8")
    (own / "texts.dev.jsonl").write_text(lines(questions(3, 2)), encoding="utf-8")
    asked = [f"How is it with the {thing}?,{answer}\n" for thing in THINGS for answer in ("deep", "old")]
    (own / "table.csv").write_text("question,answer\n" + "".join(asked), encoding="utf-8")
    (own / "written.jsonl").write_text(
        lines([{"question": f"Name {thing}", "answer": thing} for thing in THINGS]), encoding="utf-8"
    )
    (folder / "mmlu" / "mmlu.jsonl").write_text(lines(questions(8, 3)), encoding="utf-8")
    (folder / "mmlu" / "mmlu.dev.jsonl").write_text(lines(questions(5, 4)), encoding="utf-8")
    model = folder / "model"
    make_tiny(model, TinySpec(width=32, heads=2, feed_forward=64, vocabulary=400, context=2048))
    weights = load_file(model / "model.safetensors")
    # As drawn it prefers nothing to anything; twenty times as strong it does.
    save_file(
        {name: weight * (1 if "norm" in name else 20) for name, weight in weights.items()},
        model / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def weights_hash(model: Path) -> str:
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(lm: Any, folder: Path, tasks: list[str], **settings: Any) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    os.chdir(folder)  # the harness reads data files from where it is started
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(model=lm, tasks=tasks, task_manager=manager, bootstrap_iters=1, **settings)
    told: dict[str, Any] = {"scores": {}, "asked": {}}
    for name, figures in found["results"].items():
        told["scores"][name] = {
            key.removesuffix(",none"): value for key, value in figures.items() if isinstance(value, float)
        }
    for name, samples in found["samples"].items():
        asked = []
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            arguments = [list(one) for one in sample["arguments"]]
            entry: dict[str, Any] = {"prompt": short(arguments[0][0])}
            if not asked:
                entry["text"] = arguments[0][0]
            if isinstance(arguments[0][1], str):
                entry["options"] = [option for _, option in arguments]
                entry["likelihoods"] = [round(float(value[0]), 5) for value in sample["filtered_resps"]]
            else:
                entry["answer"] = sample["filtered_resps"][0]
            asked.append(entry)
        told["asked"][name] = asked
    return told


def dump(folder: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(folder / "model"), device="cpu", dtype="float32", batch_size=4)
    runs: dict[str, Any] = {"model": weights_hash(folder / "model")}
    runs["ilab"] = run(lm, folder / "ilab", ["ilab", "ilab_exact"])
    runs["own"] = run(lm, folder / "own", ["texts", "table", "written"])
    for shots, chat, system in MMLU_RUNS:
        settings = {"num_fewshot": shots, "apply_chat_template": chat, "system_instruction": system or None}
        runs[f"mmlu {shots} {chat} {bool(system)}"] = run(lm, folder / "mmlu", ["mmlu_test"], **settings)
    RESULT.write_text(json.dumps(runs, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command, where = sys.argv[1], Path(sys.argv[2]).resolve()
    (make if command == "make" else dump)(where)

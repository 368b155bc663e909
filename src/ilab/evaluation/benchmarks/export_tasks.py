"""Our items as tasks of lm-evaluation-harness, so that anybody can score them again without us.

    _group.yaml         the group ``ilab``: leaves weighted by their number of questions
    LEAF.yaml           multiple choice in letters; shots, if any are asked for, are the first of the dev file
    LEAF.jsonl          the questions (test split), LEAF.dev.jsonl those for shots (dev split)
    LEAF_exact.yaml …   questions with a written answer, compared by exact match

Paths are relative, so the harness is started in that folder: ``lm_eval --include_path . --tasks ilab …``. Options are
in the order that the run's seed gives them, the same as ``mmlu_branch`` asks, and the score is the same as ours.

Beside generated data the multiple choice of a leaf goes by InstructLab's names, so that its scripts find it:
``LEAF_task.yaml`` over ``mmlubench_LEAF.jsonl``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ilab.core.files import write_text
from ilab.data import Item
from ilab.evaluation.benchmarks.choices import Choice
from ilab.evaluation.benchmarks.mmlu_branch import branch_of
from ilab.evaluation.prompts import ANSWER, LETTERS
from ilab.models.chat import prompt_text

GROUP = "ilab"
TAG = "mmlu_pr"  # what InstructLab's tasks are called together
VERSION = 1  # of the tasks' form


def export_tasks(items: Sequence[Item], folder: Path, seed: int) -> dict[str, Any]:
    """Write the tasks of all leaves into ``folder``: what was written, and what was left out by reason."""
    branch = branch_of([item for item in items if item.kind == "mcq"])
    left_out: Counter[str] = sum(branch.dropped.values(), Counter())
    left_out.update("judged answers have no metric there" for item in items if item.kind == "free")
    names = _names(sorted({item.leaf for item in items}))
    tasks: dict[str, int] = {}
    for leaf, name in names.items():
        asked = [one.permuted(seed) for one in branch.questions if one.group == leaf]
        shots = [one.permuted(seed) for one in branch.shots.get(leaf, ())]
        if asked:
            tasks |= _write_choices(folder, name, leaf, asked, shots)
        exact = [item for item in items if item.leaf == leaf and item.kind == "exact" and item.split == "test"]
        if exact:
            tasks |= _write_exact(folder, name, leaf, exact)
    choices = [name for name in tasks if not name.endswith("_exact")]
    for group, members, metric in (
        (GROUP, choices, "acc"),
        (f"{GROUP}_exact", [*tasks.keys() - {*choices}], "exact_match"),
    ):
        if members:
            _write_group(folder, group, sorted(members), metric)
    return {"tasks": tasks, "questions": sum(tasks.values()), "left_out": dict(sorted(left_out.items()))}


def export_branch(
    items: Sequence[Item], folder: Path, names: Mapping[str, str], subjects: Mapping[str, str], seed: int
) -> None:
    """Write the multiple choice of the leaves in ``names`` (leaf to the name of its files) as InstructLab does."""
    branch = branch_of([item for item in items if item.kind == "mcq"])
    for leaf, name in names.items():
        asked = [one.permuted(seed) for one in branch.questions if one.group == leaf]
        if asked:
            file = f"mmlubench_{name}.jsonl"
            told = {"subject": subjects[leaf], "dataset_type": "mcq_qa"}
            _write_rows(folder / file, [{**_row(one), **told} for one in asked])
            _write_yaml(folder / f"{name}_task.yaml", {"tag": TAG, **_choices_task(name, leaf, {"test": file})})


def _names(leaves: Sequence[str]) -> dict[str, str]:
    """Leaf to a name for files and tasks: its path, with what is no letter or digit as ``_``; told apart by number."""
    names: dict[str, str] = {}
    for leaf in leaves:
        name = base = re.sub(r"\W+", "_", leaf).strip("_") or "leaf"
        count = 1
        while name in names.values():
            count += 1
            name = f"{base}_{count}"
        names[leaf] = name
    return names


def _write_choices(
    folder: Path, name: str, leaf: str, asked: Sequence[Choice], shots: Sequence[Choice]
) -> dict[str, int]:
    files = {"test": f"{name}.jsonl"} | ({"dev": f"{name}.dev.jsonl"} if shots else {})
    for split, rows in (("test", asked), ("dev", shots)):
        if split in files:
            _write_rows(folder / files[split], [_row(one) for one in rows])
    task = _choices_task(name, leaf, files)
    if shots:
        task |= {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}}
    _write_yaml(folder / f"{name}.yaml", task)
    return {name: len(asked)}


def _choices_task(name: str, leaf: str, files: Mapping[str, str]) -> dict[str, Any]:
    """Leaves may have different numbers of options, so lines and letters are made of what a row has."""
    letters = "'" + LETTERS + "'"
    return {
        **_task(name, leaf, files, "multiple_choice"),
        "doc_to_text": (
            "{{question.strip()}}\n{% for choice in choices %}{{ " + letters + "[loop.index0] }}. {{ choice }}\n"
            "{% endfor %}" + ANSWER
        ),
        "doc_to_choice": "{{ " + letters + "[:choices|length]|list }}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _write_exact(folder: Path, name: str, leaf: str, items: Sequence[Item]) -> dict[str, int]:
    name = f"{name}_exact"
    rows = [
        {"item": item.id, "question": prompt_text(item.question, item.context), "answer": item.gold} for item in items
    ]
    _write_rows(folder / f"{name}.jsonl", rows)
    task = {
        **_task(name, leaf, {"test": f"{name}.jsonl"}, "generate_until"),
        "doc_to_text": "Question: {{question.strip()}}\n" + ANSWER,
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 128},
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
        ],
    }
    _write_yaml(folder / f"{name}.yaml", task)
    return {name: len(items)}


def _task(name: str, leaf: str, files: Mapping[str, str], output: str) -> dict[str, Any]:
    return {
        "task": name,
        "output_type": output,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": dict(files)},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": VERSION, "leaf": leaf},
    }


def _write_group(folder: Path, group: str, members: Sequence[str], metric: str) -> None:
    content = {
        "group": group,
        "task": list(members),
        "aggregate_metric_list": [{"metric": metric, "aggregation": "mean", "weight_by_size": True}],
        "metadata": {"version": VERSION},
    }
    _write_yaml(folder / ("_group.yaml" if group == GROUP else f"_{group}.yaml"), content)


def _row(one: Choice) -> dict[str, Any]:
    return {
        "item": one.id,
        "question": one.question,
        "choices": list(one.options),
        "answer": one.gold,
        "cluster": one.cluster,
    }


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=10_000))

"""MMLU-Branch: multiple choice about what a taxonomy teaches, a task for each leaf.

Read are the folders that InstructLab's data generation writes (``node_datasets_<date>/<leaf>_task.yaml`` beside
``mmlubench_<leaf>.jsonl``), and the tasks that ``ilab evaluate export-tasks`` writes. Known faults of those files are
met here (``docs/how-to/benchmarks.md``):

* The path of the questions is the one of the machine that wrote it: the file is looked for beside the task as well.
* Shots were drawn from the questions themselves: here only a task with a separate dev file has shots.
* The stored position of the right option counts only the letters that occur in the leaf: where the teacher's own
  answer stands in the row, that decides, by text.
* Nothing balances the options' order: it is drawn from each question's id and the run's seed.

What cannot be asked is left out and counted by reason; a leaf without questions is a group without a score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ilab.core.step import Site
from ilab.core.tables import read_table
from ilab.data import Item
from ilab.errors import InputError
from ilab.evaluation.benchmarks.choices import Choice, Form, Scorer, ask_choices, limited, summarise
from ilab.evaluation.benchmarks.mmlu import choice_of
from ilab.evaluation.benchmarks.result import BenchmarkResult, Group, Row
from ilab.evaluation.benchmarks.task_files import read_yaml, split_file
from ilab.evaluation.mcq_text import Unread, read_mcq
from ilab.evaluation.prompts import same_question

BENCHMARK = "mmlu_branch"
HOW = "letters, options permuted by the seed, {}; plain mean of the leaves"
TASKS = "*_task.yaml"


@dataclass
class Branch:
    """Questions by leaf, those for shots, and what was left out by leaf and reason."""

    leaves: list[str] = field(default_factory=list)
    questions: list[Choice] = field(default_factory=list)
    shots: dict[str, list[Choice]] = field(default_factory=dict)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, leaf: str, reason: str) -> None:
        self.dropped.setdefault(leaf, Counter())[reason] += 1


def find_tasks(folder: Path) -> Path:
    """The folder with the tasks: ``folder`` itself, or the newest ``node_datasets_*`` in it that has some.

    Raises ``InputError`` where there are none.
    """
    if any(folder.glob(TASKS)):
        return folder
    for inner in sorted(folder.glob("node_datasets_*"), reverse=True):  # dated names: the newest sorts last
        if any(_task_files(inner)):
            return inner
    if any(_task_files(folder)):  # last: a folder of generated data holds other YAML files, too
        return folder
    raise InputError(
        "there are no tasks here",
        where=str(folder),
        hint="--tasks-dir takes a node_datasets_* folder with *_task.yaml, or what `ilab evaluate export-tasks` wrote",
    )


def read_branch(folder: Path) -> Branch:
    """The tasks in ``folder``. Raises ``InputError`` for a task that cannot be read, or whose questions are gone."""
    branch = Branch()
    for file in _task_files(folder):
        task = read_yaml(file)
        if not isinstance(task.get("task"), str) or "dataset_path" not in task:
            continue  # a group or a template
        if task.get("output_type", "multiple_choice") != "multiple_choice":
            branch.notes.append(f"{file.name} is no multiple choice: run it with --benchmark tasks")
            continue
        leaf = str((task.get("metadata") or {}).get("leaf") or task["task"])
        branch.leaves.append(leaf)
        _read_rows(branch, leaf, split_file(task, str(task.get("test_split", "test")), file))
        shots = task.get("fewshot_split")
        if shots and shots != task.get("test_split", "test"):
            dev = Branch()
            _read_rows(dev, leaf, split_file(task, str(shots), file))
            branch.shots[leaf] = dev.questions
    return branch


def branch_of(items: Sequence[Item], leaves: Sequence[str] = ()) -> Branch:
    """A project's own items of kind mcq: those of the test split are asked, dev items are the shots of their leaf."""
    branch = Branch(leaves=sorted({*leaves, *(item.leaf for item in items)}))
    for item in items:
        if item.kind != "mcq":
            branch.drop(item.leaf, f"kind {item.kind} is no multiple choice")
        elif item.options.count(item.gold) != 1:
            branch.drop(item.leaf, "the answer is not one of the options")
        else:
            question = f"{item.context}\n{item.question}" if item.context else item.question
            one = Choice(
                id=item.id,
                group=item.leaf,
                question=question,
                options=item.options,
                gold=item.options.index(item.gold),
                cluster=item.cluster,
            )
            if item.split == "test":
                branch.questions.append(one)
            else:
                branch.shots.setdefault(item.leaf, []).append(one)
    return branch


def run_mmlu_branch(
    branch: Branch, model: str, scorer: Scorer, form: Form, site: Site, limit: int | None = None, seed: int = 0
) -> BenchmarkResult:
    """Ask all leaves; those without questions are groups without a score. ``form.texts`` scores option texts too."""
    asked = [one.permuted(seed) for one in limited(branch.questions, limit, seed)]
    pools = {leaf: [one.permuted(seed) for one in pool] for leaf, pool in branch.shots.items()}
    rows = ask_choices(scorer, asked, pools, form, {}, site)
    shown = sorted({int(row.details["shots"]) for row in rows})
    shots = f"{shown[0]} shots" if len(shown) == 1 else f"{shown[0]} to {shown[-1]} shots" if shown else "0 shots"
    made = summarise(BENCHMARK, model, rows, HOW.format(shots), _notes(branch, rows, form, len(asked)))
    groups = _all_groups(branch, made)
    unscored: Counter[str] = sum((Counter(group.unscored) for group in groups), Counter())
    return made.model_copy(update={"groups": groups, "unscored": dict(sorted(unscored.items()))})


def _all_groups(branch: Branch, made: BenchmarkResult) -> tuple[Group, ...]:
    """The groups of every leaf, with what was left out of it."""
    known = {group.name: group for group in made.groups}
    groups = []
    for leaf in sorted({*branch.leaves, *known}):
        group = known.get(leaf, Group(name=leaf, score=None, n=0))
        left_out = branch.dropped.get(leaf, Counter())
        groups.append(group.model_copy(update={"unscored": dict(sorted((Counter(group.unscored) + left_out).items()))}))
    return tuple(groups)


def _notes(branch: Branch, rows: Sequence[Row], form: Form, asked: int) -> list[str]:
    notes = list(branch.notes)
    if asked < len(branch.questions):
        notes.append(f"{asked} of {len(branch.questions)} questions")
    without = sorted({row.group for row in rows if row.details["shots"] < form.shots})
    if without:
        notes.append(
            f"{len(without)} of {len({row.group for row in rows})} leaves have fewer than {form.shots} questions in a "
            "dev file: shots are never taken from the questions that are asked"
        )
    texts = [bool(row.details["text_correct"]) for row in rows if "text_correct" in row.details]
    if texts:
        notes.append(f"by option texts, per byte: {sum(texts) / len(texts):.4f} over {len(texts)} questions")
    return notes


def _task_files(folder: Path) -> list[Path]:
    return sorted({*folder.glob(TASKS), *folder.glob("*.yaml")}) if folder.is_dir() else []


def _read_rows(branch: Branch, leaf: str, file: Path) -> None:
    seen: dict[str, str] = {}
    for number, row in enumerate(read_table(file), 1):
        found = _choice(row, leaf, f"{file}:{number}")
        if isinstance(found, str):
            branch.drop(leaf, found)
        elif same_question(found.question) in seen:
            branch.drop(leaf, "the same question again")
        else:
            seen[same_question(found.question)] = found.id
            branch.questions.append(found)


def _choice(row: Mapping[str, Any], leaf: str, where: str) -> Choice | str:
    """A row as a question, or why it is none. The teacher's own text and answer, where they stand, decide."""
    raw, answer = row.get("mmlubench_question"), row.get("mmlubench_answer")
    asked: dict[str, Any] = {**row, "subject": leaf}
    if isinstance(raw, str) and isinstance(answer, str):
        read = read_mcq(raw, answer)
        if isinstance(read, Unread):
            return read.reason
        question = " ".join(read.question.split())
        asked |= {"question": question, "choices": list(read.options), "answer": read.gold}
    try:
        one = choice_of(asked, leaf, where)
    except InputError as error:
        return error.message
    said = [" ".join(option.split()).casefold() for option in one.options]
    if not all(said):
        return "an option is empty"
    if len(set(said)) < len(said):
        return "two options are the same"
    cluster = next((str(row[name]) for name in ("cluster", "chunk_id") if row.get(name)), "")
    identity = str(row.get("item") or one.id)  # our own tasks say which item a row is
    return one.model_copy(update={"cluster": cluster, "id": identity})

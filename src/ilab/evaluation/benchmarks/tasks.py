"""Tasks of one's own, in lm-evaluation-harness' form: the simple ones are read and run here.

    output_type   multiple_choice (acc, acc_norm, acc_bytes)   generate_until (exact_match)
    dataset       json, csv or parquet files beside the task
    prompts       doc_to_text, doc_to_choice, doc_to_target, description, delimiters: columns or Jinja templates
    shots         the first ones of ``fewshot_split``, or ``fewshot_config.samples``; never the question that is asked

The same prompts and scores as the harness' 0.4.13 (``tests/evaluation/test_tasks.py``), but for one thing: the harness
draws shots at random where a task does not say ``sampler: first_n``, and here the first are taken. Whatever else a
task asks for raises :class:`~ilab.evaluation.benchmarks.task_files.NotNative`: that is for :mod:`.harness`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ilab.core.step import Site
from ilab.core.tables import read_table
from ilab.data import digest_text, short
from ilab.errors import InputError
from ilab.evaluation.benchmarks.choices import NO_NUMBERS, TOO_LONG, Asked, Scorer, ask, best, per_byte, summarise
from ilab.evaluation.benchmarks.result import BenchmarkResult, Row
from ilab.evaluation.benchmarks.task_files import NotNative, read_yaml, split_file, value_of
from ilab.evaluation.prompts import BLANK, SHOT_END, Prompt, Shot, joined, shots_for

BENCHMARK = "tasks"
CHOICE_METRICS = ("acc", "acc_norm", "acc_bytes")
FORGIVEN = ("ignore_case", "ignore_punctuation", "ignore_numbers")  # by exact_match
READ = frozenset(
    {
        *("task", "output_type", "dataset_path", "dataset_kwargs", "test_split", "validation_split"),
        *("doc_to_text", "doc_to_choice", "doc_to_target", "description", "target_delimiter", "fewshot_delimiter"),
        *("fewshot_split", "fewshot_config", "num_fewshot", "metric_list", "generation_kwargs"),
    }
)
WITHOUT_EFFECT = frozenset({"task_alias", "tag", "group", "metadata", "training_split"})
ANSWER_TOKENS = 256  # of a written answer, where the task says nothing

Write = Callable[[Sequence[Prompt], tuple[str, ...], int], list[str | None]]  # prompts, stop texts, most tokens


@dataclass(frozen=True)
class Question:
    """One row of a task as it is asked. ``right`` are positions among the options, or texts to be written."""

    id: str
    asked: str
    options: tuple[str, ...]
    right: tuple[Any, ...]
    description: str
    row: Mapping[str, Any]

    @property
    def shot(self) -> Shot:
        answer = self.right[0]
        return Shot(self.asked, self.options[answer] if isinstance(answer, int) and self.options else str(answer))


@dataclass(frozen=True)
class Task:
    """A task that can be run here. ``metrics`` are (name, settings), the first is the score."""

    name: str
    chooses: bool
    questions: tuple[Question, ...]
    pool: tuple[Question, ...]
    shots: int
    metrics: tuple[tuple[str, Mapping[str, Any]], ...]
    blank: str = BLANK
    shot_end: str = SHOT_END
    until: tuple[str, ...] = ()
    max_tokens: int = ANSWER_TOKENS
    notes: tuple[str, ...] = ()

    def prompt(self, one: Question, system: str, chat: bool) -> Prompt:
        shots = shots_for(one.asked, [(other.asked, other.shot) for other in self.pool], self.shots)
        whole = joined(system, one.description, self.shot_end)
        return Prompt(one.asked, whole, shots, chat, self.blank, self.shot_end)


def read_tasks(path: Path, shots: int | None = None, limit: int | None = None) -> list[Task]:
    """The task in a file, or all tasks in a folder, by name; ``shots`` and ``limit`` (first questions) as the harness'.

    Raises ``NotNative`` for one that needs the harness, ``InputError`` for one that is wrong.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    tasks = []
    for file in files:
        content = read_yaml(file)
        if isinstance(content.get("task"), str) and "dataset_path" in content:
            if shots is not None:
                content["num_fewshot"] = shots
            task = _task(content, file)
            tasks.append(replace(task, questions=task.questions[:limit]) if limit else task)
    if not tasks:
        raise InputError("there is no task here", where=str(path), hint="a task is a YAML file with `task: NAME`")
    return sorted(tasks, key=lambda task: task.name)


def run_tasks(
    tasks: Sequence[Task], model: str, scorer: Scorer, write: Write, site: Site, form: tuple[str, bool] = ("", False)
) -> BenchmarkResult:
    """Run ``tasks``; each is a group. ``form`` is (system text, whether the chat template is used)."""
    rows: list[Row] = []
    for task in tasks:
        prompts = [task.prompt(one, *form) for one in task.questions]
        rows += _choose(task, prompts, scorer, site) if task.chooses else _written(task, prompts, write, site)
    notes = [note for task in tasks for note in task.notes]
    metrics = ", ".join(f"{task.name}: {task.metrics[0][0]}" for task in tasks)
    return summarise(BENCHMARK, model, rows, f"plain mean of the tasks ({metrics})", notes)


def _choose(task: Task, prompts: Sequence[Prompt], scorer: Scorer, site: Site) -> list[Row]:
    asked = [Asked(one.id, prompt, one.options) for one, prompt in zip(task.questions, prompts, strict=True)]
    found = ask(scorer, asked, site, task.name)
    rows = []
    for one in task.questions:
        values = found[one.id]
        row = Row(id=one.id, group=task.name, question=one.asked, reference=one.shot.answer)
        if not values or not all(value.known for value in values):
            rows.append(row.model_copy(update={"note": NO_NUMBERS if values else TOO_LONG}))
            continue
        sums = [value.total for value in values]
        chosen = {
            "acc": best(sums),
            "acc_norm": best(value / max(len(text), 1) for value, text in zip(sums, one.options, strict=True)),
            "acc_bytes": best(per_byte(sums, one.options)),
        }
        scores = {name: float(chosen[name] in one.right) for name, _ in task.metrics}
        first = task.metrics[0][0]
        details = {"metrics": scores, "likelihoods": [round(value, 6) for value in sums]}
        update = {"answer": one.options[chosen[first]], "score": scores[first], "details": details}
        rows.append(row.model_copy(update=update))
    return rows


def _written(task: Task, prompts: Sequence[Prompt], write: Write, site: Site) -> list[Row]:
    answers = write(prompts, task.until, task.max_tokens)
    site.emit.progress(len(answers), len(prompts), "answers", note=task.name)
    [(metric, settings)] = task.metrics
    rows = []
    for one, answer in zip(task.questions, answers, strict=True):
        wanted = [_forgiving(str(text), settings) for text in one.right]
        score = None if answer is None else float(_forgiving(answer, settings) in wanted)
        note = "" if answer is not None else "no answer"
        details = {} if score is None else {"metrics": {metric: score}}
        rows.append(
            Row(
                id=one.id,
                group=task.name,
                question=one.asked,
                answer=answer,
                reference=str(one.right[0]),
                score=score,
                note=note,
                details=details,
            )
        )
    return rows


def _forgiving(text: str, settings: Mapping[str, Any]) -> str:
    """``text`` without what the metric's settings say does not matter."""
    if settings.get("ignore_case"):
        text = text.lower()
    gone = string.punctuation * bool(settings.get("ignore_punctuation"))
    gone += string.digits * bool(settings.get("ignore_numbers"))
    return text.translate(str.maketrans("", "", gone))


def _task(content: Mapping[str, Any], file: Path) -> Task:
    name, chooses = str(content["task"]), content.get("output_type") == "multiple_choice"
    _check(content, file)
    splits = [content.get(key) for key in ("test_split", "validation_split") if content.get(key)]
    if not splits:
        raise InputError("a task names test_split or validation_split", where=str(file))
    questions = _questions(content, list(read_table(split_file(content, str(splits[0]), file))), file)
    pool, notes = _pool(content, str(splits[0]), questions, file)
    generation = dict(content.get("generation_kwargs") or {})
    shot_end = str(content.get("fewshot_delimiter", SHOT_END))
    until = generation.get("until", shot_end)
    return Task(
        name=name,
        chooses=chooses,
        questions=tuple(questions),
        pool=tuple(pool),
        shots=int(content.get("num_fewshot") or 0) if pool else 0,
        metrics=_metrics(content, chooses, file),
        blank=str(content.get("target_delimiter", BLANK)),
        shot_end=shot_end,
        until=tuple(until) if isinstance(until, list) else (str(until),),
        max_tokens=int(generation.get("max_gen_toks", ANSWER_TOKENS)),
        notes=tuple(f"{name}: {note}" for note in notes),
    )


def _check(content: Mapping[str, Any], file: Path) -> None:
    """Raises ``NotNative`` for whatever the simple form does not have."""
    if content.get("output_type") not in ("multiple_choice", "generate_until"):
        raise NotNative(f"its output_type is {content.get('output_type', 'generate_until')!r}", where=str(file))
    unknown = sorted(set(content) - READ - WITHOUT_EFFECT)
    if unknown:
        raise NotNative(f"it uses {', '.join(unknown)}", where=str(file))
    generation = content.get("generation_kwargs") or {}
    drawn = generation.get("do_sample") or float(generation.get("temperature") or 0) > 0
    if drawn or set(generation) - {"until", "max_gen_toks", "do_sample", "temperature"}:
        raise NotNative("its answers are drawn at random, or with settings of the harness' own", where=str(file))
    shots = content.get("fewshot_config") or {}
    if set(shots) - {"sampler", "samples", "split"} or isinstance(shots.get("samples"), str):
        raise NotNative("its fewshot_config has more than sampler, split and samples", where=str(file))


def _questions(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], file: Path) -> list[Question]:
    """The rows as questions. Raises ``InputError`` with the row's number where one does not fit the task."""
    chooses = content.get("output_type") == "multiple_choice"
    found, seen = [], {""}
    for number, row in enumerate(rows, 1):
        where = f"{file}: row {number}"
        asked = value_of(content.get("doc_to_text"), row, where, chooses=chooses)
        options = value_of(content.get("doc_to_choice"), row, where, chooses=False) if chooses else []
        target = value_of(content.get("doc_to_target"), row, where, chooses=chooses)
        if not isinstance(asked, str):
            raise NotNative("its options stand in the question (doc_to_text is a position)", where=where)
        if chooses and not (isinstance(options, list) and options and all(isinstance(o, str) for o in options)):
            raise InputError("doc_to_choice gives no list of texts", where=where)
        right = tuple(_position(one, options, where) if chooses else one for one in _as_list(target))
        if not right:
            raise InputError("doc_to_target gives nothing", where=where)
        description = str(value_of(content.get("description") or "", row, where, chooses=False))
        identity = f"{content['task']}/{short(digest_text(chr(0).join((asked, *options, *map(str, right)))))}"
        while identity in seen:  # the same row twice
            identity += "+"
        seen.add(identity)
        found.append(Question(identity, asked, tuple(options), right, description, row))
    return found


def _position(target: Any, options: Sequence[str], where: str) -> int:
    if isinstance(target, str) and target in options:
        return options.index(target)
    if isinstance(target, int) and 0 <= target < len(options):
        return target
    raise InputError(f"the right answer {target!r} is none of the {len(options)} options", where=where)


def _pool(
    content: Mapping[str, Any], asked_split: str, questions: Sequence[Question], file: Path
) -> tuple[list[Question], list[str]]:
    """The questions for shots, and what is worth a note about them."""
    config = content.get("fewshot_config") or {}
    wanted = int(content.get("num_fewshot") or 0)
    if not wanted:
        return [], []
    notes = [] if config.get("sampler") == "first_n" else ["shots are the first ones; the harness would draw them"]
    if config.get("samples"):
        return _questions(content, config["samples"], file), notes
    split = config.get("split") or content.get("fewshot_split")
    if not split:
        return [], ["no shots: the task names no fewshot_split, and the questions asked are no shots"]
    if split == asked_split:
        return list(questions), [*notes, "shots are other questions of the same file"]
    pool = _questions(content, list(read_table(split_file(content, str(split), file))), file)
    short_of = [f"{len(pool)} shots: there are no more"] if len(pool) < wanted else []
    return pool, [*notes, *short_of]


def _metrics(content: Mapping[str, Any], chooses: bool, file: Path) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    known = CHOICE_METRICS if chooses else ("exact_match",)
    listed = content.get("metric_list") or [{"metric": known[0]}]
    found = []
    for entry in listed:
        name = entry.get("metric") if isinstance(entry, dict) else None
        settings = {key: value for key, value in entry.items() if key in FORGIVEN} if name else {}
        rest = set(entry) - set(FORGIVEN) - {"metric", "aggregation", "higher_is_better"} if name else set()
        if name not in known or rest or entry.get("aggregation", "mean") != "mean":
            raise NotNative(f"its metric is {name!r}; here are {', '.join(known)}, averaged", where=str(file))
        found.append((str(name), settings))
    if not chooses and len(found) != 1:
        raise NotNative("it has several metrics of a written answer", where=str(file))
    return tuple(found)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]

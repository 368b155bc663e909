"""What ``ilab model evaluate`` measures: from its options to one benchmark's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab.cli.evaluate_judge import given_judge
from ilab.cli.model_evaluate import Measured
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.core.run import Engine
    from ilab.core.step import Site
    from ilab.data import Leaf
    from ilab.evaluation.benchmarks.chat_files import Question
    from ilab.evaluation.benchmarks.choices import Form
    from ilab.evaluation.benchmarks.result import BenchmarkResult
    from ilab.evaluation.benchmarks.under_test import LocalUnderTest, ServedUnderTest
    from ilab.evaluation.judge import Judge
    from ilab.evaluation.subject import Subject
    from ilab.models.served import ServedModel

STEP = "evaluate"  # under this name progress is told
SHOTS = 5


@dataclass(frozen=True)
class Job:
    """One call of the command. ``base`` is there where the benchmark compares and a base is known."""

    directory: Path
    loaded: Loaded
    given: Mapping[str, Any]
    engine: Engine
    candidate: Measured | None
    base: Measured | None
    folder: Path

    @cached_property
    def site(self) -> Site:
        """Where it runs: memos of the store, progress under one name."""
        from ilab.core.step import Site

        engine = self.engine
        return Site(
            where=engine.where,
            work=self.folder,
            found={},
            emit=engine.bus.for_step(STEP),
            memo=engine.memo,
            stopping=engine.stop.is_set,
            history=list,
        )

    @property
    def models(self) -> dict[str, Measured]:
        """``candidate``, and ``base`` where there is one."""
        named = {"base": self.base, "candidate": self.candidate}
        return {role: model for role, model in named.items() if model is not None}

    def path(self, name: str) -> Path:
        return self.directory / Path(self.given[name]).expanduser()

    def form(self, *, texts: bool = False) -> Form:
        from ilab.evaluation.benchmarks.choices import Form

        shots = self.given["few_shots"]
        return Form(SHOTS if shots is None else shots, self.given["chat"], self.given["system_prompt"] or "", texts)

    def under_test(self, model: Measured) -> LocalUnderTest | ServedUnderTest:
        """The model as one whose likelihoods are read."""
        from ilab.evaluation.benchmarks.under_test import LocalUnderTest, ServedUnderTest

        if model.folder is None:
            return ServedUnderTest(self.served(model), self.site)
        batch = self.given["batch_size"]
        return LocalUnderTest(model.folder, self.site, "auto" if batch == "auto" else int(batch))

    def served(self, model: Measured) -> ServedModel:
        """A served model asked in token ids. Raises ``InputError`` without its tokenizer's folder."""
        from ilab.models.served import ServedModel

        if model.endpoint is None:
            raise InputError("there is neither a folder nor a server", where=model.name)
        if not self.given["tokenizer"]:
            raise InputError(
                "this benchmark reads likelihoods; for a served model that takes the folder of its tokenizer",
                where=model.name,
                hint="--tokenizer DIR, the Hugging Face folder of that model; or measure the folder: --model DIR",
            )
        return ServedModel.meet(model.endpoint, model.served, self.path("tokenizer"), self.given["context_length"])

    def subject(self, model: Measured) -> Subject:
        """The model as one that answers conversations."""
        from ilab.evaluation.subject import Asking, LocalSubject, endpoint_subject

        asking = Asking(self.engine.memo("answers"), self.site.emit, self.engine.stop.is_set)
        if model.folder is not None:
            where = self.engine.where
            return LocalSubject(model.name, model.folder, asking, device=where.device, threads=where.threads)
        if model.endpoint is None:
            raise InputError("there is neither a folder nor a server", where=model.name)
        return endpoint_subject(model.name, model.endpoint, asking, served=model.served)

    def judge(self) -> Judge:
        """The judge that is configured. Raises ``InputError`` where there is none."""
        return given_judge(self.given["judge_model"], self.site)


@dataclass(frozen=True)
class Outcome:
    """What was measured. ``files`` are further files by name, as InstructLab's tools expect them."""

    benchmark: str
    result: BenchmarkResult
    base: BenchmarkResult | None = None
    comparison: Mapping[str, Any] | None = None
    files: Mapping[str, Any] = field(default_factory=dict)


def measure(benchmark: str, job: Job) -> Outcome:
    """Run ``benchmark``."""
    return RUNS[benchmark](job)


def _candidate(job: Job) -> Measured:
    if job.candidate is None:
        raise InputError("no model is given", hint="--model DIR")
    return job.candidate


def _mmlu(job: Job) -> Outcome:
    from ilab.evaluation.benchmarks.mmlu import HUB_NAME, find_mmlu, read_mmlu, run_mmlu

    test = read_mmlu(find_mmlu(job.given["test_set"] or HUB_NAME, job.directory))
    model = job.under_test(_candidate(job))
    result = run_mmlu(
        test, _candidate(job).name, model.scorer(), job.form(), job.site, job.given["limit"], job.given["seed"]
    )
    return Outcome("mmlu", result)


def _mmlu_branch(job: Job) -> Outcome:
    from ilab.cli.evaluate_leaves import items_of
    from ilab.config import data_home
    from ilab.evaluation.benchmarks.mmlu_branch import branch_of, find_tasks, read_branch, run_mmlu_branch
    from ilab.evaluation.benchmarks.paired import branch_data
    from ilab.transfer.stores import latest_of

    kept = latest_of(job.loaded, "items")
    if job.given["tasks_dir"] or not kept.is_dir():
        branch = read_branch(find_tasks(job.path("tasks_dir") if job.given["tasks_dir"] else data_home() / "datasets"))
    else:
        branch = branch_of(items_of(job.loaded))
    results = {}
    for role, model in job.models.items():
        scorer = job.under_test(model).scorer()
        limit, seed = job.given["limit"], job.given["seed"]
        results[role] = run_mmlu_branch(branch, model.name, scorer, job.form(texts=True), job.site, limit, seed)
    outcome = _outcome("mmlu_branch", results)
    data = branch_data("mmlu_branch", outcome.result, outcome.base, outcome.comparison)
    return Outcome(**{**vars(outcome), "files": {"mmlu_branch_data.json": data}})


def _tasks(job: Job) -> Outcome:
    from ilab.evaluation.benchmarks.harness import HarnessRun, run_harness
    from ilab.evaluation.benchmarks.task_files import NotNative
    from ilab.evaluation.benchmarks.tasks import read_tasks, run_tasks

    path, model = job.path("tasks_dir"), _candidate(job)
    under_test = job.under_test(model)
    try:
        tasks = read_tasks(path, job.given["few_shots"], job.given["limit"])
    except NotNative as error:
        if model.folder is None:
            raise InputError(
                f"this takes lm-evaluation-harness, which is given folders alone: {error.message}",
                where=error.where,
                hint="measure the model's folder: --model DIR",
            ) from error
        folder = path if path.is_dir() else path.parent
        run = HarnessRun(
            model.name,
            model.folder,
            tuple(names_in(path)),
            folder,
            job.given["few_shots"],
            job.given["batch_size"],
            "cuda" if job.engine.where.device.startswith("cuda") else "cpu",
            job.given["limit"],
            job.given["seed"],
            job.given["chat"],
        )
        return Outcome("tasks", run_harness(run, f"{error.where}: {error.message}"))
    form = (job.given["system_prompt"] or "", job.given["chat"])
    result = run_tasks(tasks, model.name, under_test.scorer(), under_test.writer(), job.site, form)
    return Outcome("tasks", result)


def names_in(path: Path) -> list[str]:
    """The names of the tasks in a file or folder, whatever they need."""
    from ilab.evaluation.benchmarks.task_files import read_yaml

    files = [path] if path.is_file() else sorted(path.glob("*.yaml"))
    contents = [read_yaml(file) for file in files]
    return [str(content["task"]) for content in contents if isinstance(content.get("task"), str)]


def _mt_bench(job: Job) -> Outcome:
    from ilab.evaluation.benchmarks.chat_files import BUILTIN, load_questions
    from ilab.evaluation.benchmarks.mt_bench import run_mt_bench

    every = load_questions(job.path("questions") if job.given["questions"] else BUILTIN)
    questions = replace(every, questions=tuple(_some(job, every.questions)))
    judge, subject = job.judge(), job.subject(_candidate(job))
    result = run_mt_bench(
        questions, subject, judge, job.folder, job.site.emit, seed=job.given["seed"], when=datetime.now(UTC)
    )
    return Outcome("mt_bench", _noted(result, len(questions.questions), len(every.questions)))


def _mt_bench_branch(job: Job) -> Outcome:
    from ilab.evaluation.benchmarks.mt_bench_branch import branch_questions, run_mt_bench_branch
    from ilab.evaluation.benchmarks.paired import branch_data

    leaves = _leaves(job, job.given["branch"])
    earlier = {leaf.path for leaf in _leaves(job, job.given["base_branch"])} if job.given["base_branch"] else None
    judge = job.judge()
    subjects = {role: job.subject(model) for role, model in job.models.items()}
    branch, every = job.given["branch"], branch_questions(leaves)
    questions = _some(job, every)
    found = run_mt_bench_branch(
        questions, subjects, judge, job.folder, job.site.emit, branch=branch, when=datetime.now(UTC)
    )
    results = {role: _noted(result, len(questions), len(every)) for role, result in found.items()}
    if earlier is not None and "base" in results:  # a leaf that the base branch has not is new, not improved
        results["base"] = _without(results["base"], {leaf.path for leaf in leaves} - earlier)
    outcome = _outcome("mt_bench_branch", results)
    data = branch_data("mt_bench_branch", outcome.result, outcome.base, outcome.comparison)
    return Outcome(**{**vars(outcome), "files": {"mt_bench_branch_data.json": data}})


def _some(job: Job, questions: Sequence[Question]) -> list[Question]:
    """At most ``--limit`` questions of each leaf or category."""
    from ilab.evaluation.drawn import drawn

    return drawn(questions, job.given["limit"], job.given["seed"], lambda one: (one.group, str(one.question_id)))


def _noted(result: BenchmarkResult, asked: int, all_: int) -> BenchmarkResult:
    """``result``, saying so where only some of its questions were asked."""
    notes = (*result.notes, f"{asked} of {all_} questions")
    return result.model_copy(update={"notes": notes}) if asked < all_ else result


def _without(result: BenchmarkResult, leaves: set[str]) -> BenchmarkResult:
    """``result`` without some groups; its means are over the rows and groups that stay."""
    rows = tuple(row for row in result.rows if row.group not in leaves)
    groups = tuple(group for group in result.groups if group.name not in leaves)
    scores = [row.score for row in rows if row.score is not None]
    means = [group.score for group in groups if group.score is not None]
    micro = round(sum(scores) / len(scores), 6) if scores else None
    macro = round(sum(means) / len(means), 6) if means else None
    update = {"rows": rows, "groups": groups, "n": len(scores), "score": micro, "micro": micro, "macro": macro}
    return result.model_copy(update=update)


def _dk_bench(job: Job) -> Outcome:
    from ilab.evaluation.benchmarks.dk_bench import How, run_dk_bench

    formats = [form.strip().lower() for form in job.given["output_file_formats"].split(",") if form.strip()]
    subject = job.subject(job.candidate) if job.candidate else None
    given = job.given
    how = How(given["system_prompt"] or "", given["temperature"], given["seed"], given["limit"], datetime.now(UTC))
    path = job.path("input_questions")
    return Outcome("dk_bench", run_dk_bench(path, subject, job.judge(), job.folder, formats, job.site.emit, how))


def _own_leaves(job: Job) -> Outcome:
    from ilab.cli.evaluate_leaves import measure_leaves

    return _outcome("leaves", measure_leaves(job))


def _outcome(benchmark: str, results: Mapping[str, BenchmarkResult]) -> Outcome:
    from ilab.evaluation.benchmarks.paired import CANDIDATE, compared

    if CANDIDATE not in results:
        raise InputError("no model is given", hint="--model DIR")
    return Outcome(benchmark, *compared(results))


def _leaves(job: Job, branch: str) -> list[Leaf]:
    """The leaves of a branch of the taxonomy. The work tree is not touched: the branch's files are read from git."""
    from ilab.core.git import is_url
    from ilab.taxonomy.locate import find_taxonomy, read_found

    given = job.given["taxonomy_path"]
    address = given if is_url(given) else f"file://{job.path('taxonomy_path').resolve()}"
    found = find_taxonomy(f"{address}#{branch}", job.directory, job.engine.where)
    return list(read_found(found).leaves)


RUNS: dict[str, Callable[[Job], Outcome]] = {
    "leaves": _own_leaves,
    "mmlu": _mmlu,
    "mmlu_branch": _mmlu_branch,
    "mt_bench": _mt_bench,
    "mt_bench_branch": _mt_bench_branch,
    "dk_bench": _dk_bench,
    "tasks": _tasks,
}

"""What ``ilab model evaluate`` measures: from its options to one benchmark's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab.cli.model_evaluate import RULE, Measured
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.core.run import Engine
    from ilab.core.step import Site
    from ilab.data import Item, Leaf, Score
    from ilab.evaluation.benchmarks.choices import Form
    from ilab.evaluation.benchmarks.result import BenchmarkResult
    from ilab.evaluation.benchmarks.under_test import LocalUnderTest
    from ilab.evaluation.judge import Judge
    from ilab.evaluation.subject import Subject

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

    def local(self, model: Measured) -> LocalUnderTest:
        """The model's folder, for likelihoods. Raises ``InputError`` for a served one."""
        from ilab.evaluation.benchmarks.under_test import LocalUnderTest

        if model.folder is None:
            raise InputError(
                "this benchmark reads the likelihood of each option, which is done on a model's folder",
                where=model.name,
                hint="--model DIR; mt_bench, mt_bench_branch and dk_bench take a served model",
            )
        batch = self.given["batch_size"]
        return LocalUnderTest(model.folder, self.site, "auto" if batch == "auto" else int(batch))

    def subject(self, model: Measured) -> Subject:
        """The model as one that answers conversations."""
        from ilab.evaluation.subject import Asking, LocalSubject, endpoint_subject

        asking = Asking(self.engine.memo("answers"), self.site.emit, self.engine.stop.is_set)
        if model.folder is not None:
            where = self.engine.where
            return LocalSubject(model.name, model.folder, asking, device=where.device, threads=where.threads)
        if model.endpoint is None:
            raise InputError("there is neither a folder nor a server", where=model.name)
        return endpoint_subject(model.name, model.endpoint, asking)

    def judge(self) -> Judge:
        """The judge that is configured. Raises ``InputError`` where there is none."""
        from ilab.evaluation.judge import open_judge
        from ilab.evaluation.rule_judge import RuleJudge

        name = self.given["judge_model"] or ""
        if name == RULE:
            return RuleJudge()
        memo = self.engine.memo("judge")
        where = self.engine.where
        judge = open_judge(where, name, memo=memo, emit=self.site.emit, stopping=self.engine.stop.is_set)
        if judge is None:
            raise InputError(
                "no server is known that judges",
                where="where.judge",
                hint="--judge-endpoint URL --judge-model NAME; a folder is served with `ilab model serve "
                "--model-path DIR`; --judge-model rule compares words, without a model",
            )
        return judge


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
    model = job.local(_candidate(job))
    result = run_mmlu(
        test, _candidate(job).name, model.scorer(), job.form(), job.site, job.given["limit"], job.given["seed"]
    )
    return Outcome("mmlu", result)


def _mmlu_branch(job: Job) -> Outcome:
    from ilab.config import data_home
    from ilab.evaluation.benchmarks.mmlu_branch import branch_of, find_tasks, read_branch, run_mmlu_branch
    from ilab.evaluation.benchmarks.paired import branch_data

    kept = job.loaded.store / "latest" / "items"
    if job.given["tasks_dir"] or not kept.is_dir():
        branch = read_branch(find_tasks(job.path("tasks_dir") if job.given["tasks_dir"] else data_home() / "datasets"))
    else:
        branch = branch_of(_items(job))
    results = {}
    for role, model in job.models.items():
        scorer = job.local(model).scorer()
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
    under_test = job.local(model)
    try:
        tasks = read_tasks(path, job.given["few_shots"], job.given["limit"])
    except NotNative as error:
        folder = path if path.is_dir() else path.parent
        run = HarnessRun(
            model.name,
            Path(model.folder or ""),
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

    questions = load_questions(job.path("questions") if job.given["questions"] else BUILTIN)
    judge, subject = job.judge(), job.subject(_candidate(job))
    result = run_mt_bench(
        questions, subject, judge, job.folder, job.site.emit, seed=job.given["seed"], when=datetime.now(UTC)
    )
    return Outcome("mt_bench", result)


def _mt_bench_branch(job: Job) -> Outcome:
    from ilab.evaluation.benchmarks.mt_bench_branch import run_mt_bench_branch
    from ilab.evaluation.benchmarks.paired import branch_data

    leaves = _leaves(job, job.given["branch"])
    earlier = {leaf.path for leaf in _leaves(job, job.given["base_branch"])} if job.given["base_branch"] else None
    judge = job.judge()
    subjects = {role: job.subject(model) for role, model in job.models.items()}
    branch = job.given["branch"]
    results = run_mt_bench_branch(
        leaves, subjects, judge, job.folder, job.site.emit, branch=branch, when=datetime.now(UTC)
    )
    if earlier is not None and "base" in results:  # a leaf that the base branch has not is new, not improved
        results["base"] = _without(results["base"], {leaf.path for leaf in leaves} - earlier)
    outcome = _outcome("mt_bench_branch", results)
    data = branch_data("mt_bench_branch", outcome.result, outcome.base, outcome.comparison)
    return Outcome(**{**vars(outcome), "files": {"mt_bench_branch_data.json": data}})


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
    how = How(job.given["system_prompt"] or "", job.given["temperature"], job.given["seed"], datetime.now(UTC))
    path = job.path("input_questions")
    return Outcome("dk_bench", run_dk_bench(path, subject, job.judge(), job.folder, formats, job.site.emit, how))


def _leaves_benchmark(job: Job) -> Outcome:
    from ilab.artifacts import Documents
    from ilab.data import seed_from
    from ilab.evaluation.asking import Asking
    from ilab.evaluation.leaf import score_items
    from ilab.evaluation.passages import passages
    from ilab.models.device import pick_device

    items = [item for item in _items(job) if item.split == "test"]
    limit = job.given["limit"]
    if limit:
        by_leaf: dict[str, list[Item]] = {}
        for item in sorted(items, key=lambda item: (seed_from(item.id, job.given["seed"]), item.id)):
            by_leaf.setdefault(item.leaf, []).append(item)
        kept = {item.id for own in by_leaf.values() for item in own[:limit]}
        items = [item for item in items if item.id in kept]
    documents = job.loaded.store / "latest" / "documents"
    read = passages(items, Documents(documents).chunks()) if documents.is_dir() else {}
    where, batch = job.engine.where, job.given["batch_size"]
    asking = Asking(pick_device(where.device), where.threads, "auto" if batch == "auto" else int(batch), read)
    results = {}
    for role, model in job.models.items():
        if model.folder is None:
            raise InputError("held-out items are asked of a model's folder", where=model.name, hint="--model DIR")
        scores = score_items(model.name, model.folder, items, asking, job.site)
        results[role] = _leaf_result(model.name, items, scores)
    return _outcome("leaves", results)


def _leaf_result(model: str, items: list[Item], scores: list[Score]) -> BenchmarkResult:
    """Scores of held-out items as a benchmark's result."""
    from ilab.evaluation.benchmarks.choices import summarise
    from ilab.evaluation.benchmarks.result import Row

    asked = {item.id: item for item in items}
    rows = [
        Row(
            id=score.item,
            group=score.leaf,
            question=asked[score.item].question,
            answer=score.answer,
            reference=asked[score.item].gold,
            score=score.value,
            note=score.note,
            details={"kind": score.kind, "cluster": score.cluster, **score.metrics},
        )
        for score in scores
    ]
    how = "held-out items of the test split, closed book; plain mean of the leaves"
    return summarise("leaves", model, rows, how)


def _outcome(benchmark: str, results: Mapping[str, BenchmarkResult]) -> Outcome:
    from ilab.evaluation.benchmarks.paired import compare_results

    base = results.get("base")
    if "candidate" not in results:
        raise InputError("no model is given", hint="--model DIR")
    comparison = compare_results(base, results["candidate"]) if base else None
    return Outcome(benchmark, results["candidate"], base, comparison)


def _items(job: Job) -> list[Item]:
    """The project's held-out items. Raises ``InputError`` where it has none yet."""
    from ilab.artifacts import Items

    folder = job.loaded.store / "latest" / "items"
    found = Items(folder).items() if folder.is_dir() else []
    if not found:
        raise InputError("this project has no held-out items yet", where=str(job.loaded.base), hint="ilab run")
    return found


def _leaves(job: Job, branch: str) -> list[Leaf]:
    """The leaves of a branch of the taxonomy. The work tree is not touched: the branch's files are read from git."""
    from ilab.core.git import is_url
    from ilab.taxonomy.locate import find_taxonomy, read_found

    given = job.given["taxonomy_path"]
    address = given if is_url(given) else f"file://{job.path('taxonomy_path').resolve()}"
    found = find_taxonomy(f"{address}#{branch}", job.directory, job.engine.where)
    return list(read_found(found).leaves)


RUNS: dict[str, Callable[[Job], Outcome]] = {
    "leaves": _leaves_benchmark,
    "mmlu": _mmlu,
    "mmlu_branch": _mmlu_branch,
    "mt_bench": _mt_bench,
    "mt_bench_branch": _mt_bench_branch,
    "dk_bench": _dk_bench,
    "tasks": _tasks,
}

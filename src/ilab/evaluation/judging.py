"""The judge in the pipeline: who it is, what it is asked between the phases and at the end, whether it is trusted.

With a judge every answerable item is answered in the model's own words, also one that is multiple choice otherwise,
and the answer is marked against the gold one (``Score.metrics["judge"]``). Of items that ask for a written answer the
mark is the score. Without a judge the same steps write that there is none, so the graph is the same for everybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilab.artifacts import Checkpoint, Report
from ilab.core.files import write_json
from ilab.core.step import Counts, Found, Site, fingerprint
from ilab.data import Item, Judgment, Leaf, Message, Score
from ilab.errors import InputError
from ilab.evaluation.benchmarks.chat_files import load_questions
from ilab.evaluation.benchmarks.mt_bench import run_mt_bench
from ilab.evaluation.benchmarks.mt_bench_branch import branch_questions, run_mt_bench_branch
from ilab.evaluation.benchmarks.paired import CANDIDATE, branch_data, compared
from ilab.evaluation.benchmarks.result import BenchmarkResult
from ilab.evaluation.calibration import calibrate, read_marked, trusted
from ilab.evaluation.judge import Judge, disagreement, open_judge, reason
from ilab.evaluation.rubric import QUALITY, Asked
from ilab.evaluation.rule_judge import RULE, RuleJudge
from ilab.evaluation.subject import Subject, local_subject
from ilab.models.chat import prompt_text

JUDGE = "judge"  # the metric
NO_JUDGE = "no judge"
NO_MARK = "the judge gave no mark"
BUILTIN = "builtin"
ANSWER_TOKENS = 256


def find_marks(locator: str, folder: Path) -> Found:
    """Resolve a file of answers that people marked; reads all of it."""
    path = folder / Path(locator).expanduser()
    if not path.is_file():
        raise InputError(
            f"no such file of marked answers: {locator}",
            where="eval_judge_marks",
            hint="a row has question, answer, reference and mark (1 to 10, or good or bad)",
        )
    rows = sorted(repr(row) for row in read_marked(path))
    return Found(f"marks:{fingerprint(rows)}", locator, details={"path": str(path)})


def find_mt_bench(locator: str, folder: Path) -> Found:
    """Resolve a question set: ``builtin``, or a file in FastChat's form; reads all of it."""
    source = locator if locator == BUILTIN else str(folder / Path(locator).expanduser())
    rows = [one.model_dump(mode="json") for one in load_questions(source).questions]
    return Found(f"mt-bench:{fingerprint(rows)}", locator, details={"source": source})


def the_judge(name: str, site: Site, at_once: int | None = None) -> Judge | None:
    """The judge served under ``name`` at ``where.judge``, the one by rule, or None without a name.

    ``at_once``: most questions under way, in place of ``where.judge.in_flight``.
    """
    if not name or name == RULE:
        return RuleJudge() if name else None
    where = site.where
    if at_once and where.judge:
        where = where.model_copy(update={"judge": where.judge.model_copy(update={"in_flight": at_once})})
    return open_judge(where, name, memo=site.memo("judge"), emit=site.emit, stopping=site.stopping)


def expect_judgments(judge: str, models: int, items: Sequence[Item]) -> dict[str, float]:
    """Calls that marking ``items`` costs: two for each model and item that is judged."""
    calls = 2 * models * sum(_judged(item) for item in items)
    return {"calls": calls} if calls and judge not in ("", RULE) else {}


def judge_scores(
    scores: Sequence[Score], items: Sequence[Item], subject: Subject, judge: Judge
) -> tuple[list[Score], list[Judgment]]:
    """``scores`` of one model on ``items`` with the judge's marks, and what the judge said.

    Items of the general suite and unanswerable ones are left alone: what is right there is no question of judgement.
    """
    by_id = {item.id: item for item in items}
    marked = [score for score in scores if _judged(by_id[score.item])]
    unwritten = [score for score in marked if by_id[score.item].kind == "mcq"]
    prompts = [_prompt(by_id[score.item]) for score in unwritten]
    written = dict(
        zip((score.item for score in unwritten), subject.answer(prompts, max_tokens=ANSWER_TOKENS), strict=True)
    )
    asked = [_asked(by_id[score.item], subject.name, written.get(score.item, score.answer)) for score in marked]
    judgments = judge.mark(asked)
    return with_marks(scores, items, judgments), judgments


def with_marks(scores: Sequence[Score], items: Sequence[Item], judgments: Sequence[Judgment]) -> list[Score]:
    """``scores`` with the marks of those ``items`` that have a judgment; the others as they were."""
    by_id = {item.id: item for item in items}
    found = {judgment.item: judgment for judgment in judgments}
    return [_with_mark(score, by_id[score.item], found.get(score.item)) for score in scores]


def told(judge: str, judgments: Sequence[Judgment]) -> dict[str, Any]:
    """What a report says of the judge: its name, how many answers it marked, and what it could not mark, by reason."""
    if not judge:
        return {"judge": None, "note": NO_JUDGE}
    apart = disagreement(judgments)
    return {
        "judge": judge,
        "by_rule": judge == RULE,
        "rubric": QUALITY.name,
        "marked": sum(one.mark is not None for one in judgments),
        "unscored": dict(sorted(Counter(reason(one) for one in judgments if one.mark is None).items())),
        "passes_apart": None if apart is None else round(apart, 6),
    }


def calibrate_judge(name: str, marks: Found | None, out: Report, site: Site) -> Counts:
    """Write how the judge agrees with people: ``trusted``, and the figures where there are any."""
    judge = the_judge(name, site)
    if judge is None or marks is None:
        line = "no judge: set eval_judge_model and where.judge" if judge is None else _uncalibrated(name)
        out.write({"judge": name or None, "trusted": False, "line": line})
        return {"marked": 0}
    rows = read_marked(Path((marks.details or {})["path"]))
    found = calibrate(judge, rows)
    site.emit.metric(note=found.line())
    out.write({**found.model_dump(mode="json"), "trusted": trusted(found), "line": found.line()})
    return {"marked": found.n}


def mt_bench(name: str, questions: Found | None, models: Mapping[str, Checkpoint], out: Report, site: Site) -> Counts:
    """MT-Bench of every model; ``results`` by model, and FastChat's files beside the report."""
    judge = the_judge(name, site, site.where.evaluate.mt_bench_workers)
    if judge is None or questions is None:
        return _nothing(out)
    loaded = load_questions((questions.details or {})["source"])
    results = {
        key: run_mt_bench(loaded, local_subject(key, model.model, site), judge, out.path / "files" / key, site.emit)
        for key, model in models.items()
    }
    return _benchmark(results, name, out)


def mt_bench_branch(
    name: str, leaves: Sequence[Leaf], models: Mapping[str, Checkpoint], out: Report, site: Site
) -> Counts:
    """The seed examples of the skills, asked of every model."""
    judge = the_judge(name, site, site.where.evaluate.final_workers)
    questions = branch_questions(leaves)
    if judge is None or not questions:
        return _nothing(out, NO_JUDGE if judge is None else "the taxonomy teaches no skill")
    subjects = {key: local_subject(key, model.model, site) for key, model in models.items()}
    files = out.path / "files"
    results = run_mt_bench_branch(questions, subjects, judge, files, site.emit)
    if CANDIDATE in results:
        write_json(files / "mt_bench_branch_data.json", branch_data("mt_bench_branch", *compared(results)))
    return _benchmark(results, name, out)


def _benchmark(results: Mapping[str, BenchmarkResult], judge: str, out: Report) -> Counts:
    out.write({"judge": judge, "results": {key: one.model_dump(mode="json") for key, one in results.items()}})
    scored = [one for one in results.values() if one.score is not None]
    return {"models": len(results), "questions": max((one.n for one in scored), default=0)}


def _nothing(out: Report, why: str = NO_JUDGE) -> Counts:
    out.write({"judge": None, "note": why, "results": {}})
    return {"models": 0}


def _uncalibrated(name: str) -> str:
    return f"the judge {name} is not calibrated: -p eval_judge_marks=FILE of answers that people marked"


def _judged(item: Item) -> bool:
    return not item.unanswerable and item.origin != "general"


def _prompt(item: Item) -> list[Message]:
    return [Message(role="user", content=prompt_text(item.question, item.context))]


def _asked(item: Item, model: str, answer: str | None) -> Asked:
    return Asked(item.id, item.leaf, model, item.question, answer, context=item.context, reference=item.gold)


def _with_mark(score: Score, item: Item, judgment: Judgment | None) -> Score:
    """The score with the judge's mark. A written answer without a mark is unscored, never low."""
    if judgment is None:
        return score
    written = item.kind == "free"
    if judgment.mark is None:
        return score.model_copy(update={"value": None, "note": score.note or NO_MARK}) if written else score
    metrics = {**score.metrics, JUDGE: round(judgment.mark, 6)}
    return score.model_copy(update={"metrics": metrics, **({"value": metrics[JUDGE]} if written else {})})

"""MT-Bench-Branch: the seed examples of a taxonomy's skills as questions, base and candidate marked by a judge.

Upstream's measure of new skills. The seeds are what the samples were made from, so it says whether they were learnt,
not whether the skill holds elsewhere; every result says so. A question is known by its leaf, text *and* context: two
contexts under the same question are two questions. Answers are greedy, so that a second run asks the same again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ilab.core.events import Emit
from ilab.core.files import write_json
from ilab.data import Leaf, digest_text
from ilab.errors import InputError
from ilab.evaluation.benchmarks.chat_files import Question, answer_rows, file_name, write_rows
from ilab.evaluation.benchmarks.judged import error_rate, result_of
from ilab.evaluation.benchmarks.mt_bench import ask, judge_turns, write_files
from ilab.evaluation.benchmarks.result import BenchmarkResult
from ilab.evaluation.judge import Judge
from ilab.evaluation.rubric import QUALITY
from ilab.evaluation.subject import Subject
from ilab.models.chat import prompt_text

NAME = "mt_bench_branch"
SUMMARY = "mt_bench_branch_data.json"
CATEGORY = "taxonomy"
HOW = "mean mark, 1 to 10, of the seed examples of {leaves} skill leaves"
TRAINED_ON = "the seed examples are what training was made from: this says whether they were learnt, no more"
BASE, CANDIDATE = "base", "candidate"


def run_mt_bench_branch(
    leaves: Sequence[Leaf],
    subjects: Mapping[str, Subject],
    judge: Judge,
    folder: Path,
    emit: Emit,
    *,
    branch: str = CATEGORY,
    when: datetime | None = None,
) -> dict[str, BenchmarkResult]:
    """Ask every subject the same questions, judge, and write the files under ``folder``.

    The results have the keys of ``subjects``; with ``base`` and ``candidate`` among them ``mt_bench_branch_data.json``
    compares the two. Raises ``InputError`` where no leaf is a skill or two subjects share a name; else as
    :func:`ilab.evaluation.benchmarks.mt_bench.run_mt_bench`.
    """
    questions = branch_questions(leaves)
    if not questions:
        raise InputError("the taxonomy has no skill with seed examples", hint="knowledge is measured by mmlu_branch")
    names = [file_name(subject.name) for subject in subjects.values()]
    if len(set(names)) < len(names):
        raise InputError(
            f"two models go by one name: {', '.join(names)}", hint="their files would overwrite each other"
        )
    place = folder / NAME / file_name(branch)
    write_rows(place / "question.jsonl", [question.model_dump(mode="json") for question in questions])
    references: dict[int | str, list[str | None]] = {one.question_id: list(one.reference) for one in questions}
    write_rows(place / "reference_answer" / f"{file_name(judge.name)}.jsonl", answer_rows(judge.name, references, when))
    answers = {key: ask(questions, subject, temperatures={}, seed=0) for key, subject in subjects.items()}
    results = {}
    for key, subject in subjects.items():
        turns = judge_turns(questions, answers[key], subject.name, judge, emit)
        results[key] = result_of(
            NAME,
            judge,
            QUALITY,
            [turn.row() for turn in turns],
            [turn.judgment for turn in turns],
            how=HOW.format(leaves=len({question.group for question in questions})),
            notes=[TRAINED_ON],
        )
        write_files(place, answers[key], turns, when)
    if CANDIDATE in results:
        write_json(folder / SUMMARY, comparison(results.get(BASE), results[CANDIDATE]))
    return results


def branch_questions(leaves: Sequence[Leaf]) -> list[Question]:
    """The seed pairs of all skill leaves, by leaf path. A pair that stands twice in a leaf is asked once."""
    questions: dict[str, Question] = {}
    for leaf in sorted(leaves, key=lambda leaf: leaf.path):
        for seed in leaf.seeds if leaf.kind != "knowledge" else ():
            for pair in seed.pairs:
                key = digest_text("\0".join([leaf.path, pair.question, seed.context or ""]))[:32]
                question = Question(
                    question_id=key,
                    category=CATEGORY,
                    turns=(prompt_text(pair.question, seed.context),),
                    reference=(pair.answer,),
                    qna_file=f"{leaf.path}/qna.yaml",
                )
                questions.setdefault(key, question)
    return list(questions.values())


def comparison(base: BenchmarkResult | None, candidate: BenchmarkResult) -> dict[str, Any]:
    """Base and candidate under the names that InstructLab's pipeline reads.

    Its rule is kept here: any difference of a leaf's mean is an improvement or a regression, however small. Whether it
    is more than noise is said elsewhere, with intervals.
    """
    before = {} if base is None else {group.name: group.score for group in base.groups}
    changes: dict[str, list[dict[str, Any]]] = {"improvements": [], "regressions": [], "no_changes": [], "new": []}
    for group in candidate.groups:
        task, old = f"{group.name}/qna.yaml", before.get(group.name)
        if group.score is None:
            continue
        if old is None:
            changes["new"].append({"qna": task, "average_score": round(group.score, 2)})
        elif group.score == old:
            changes["no_changes"].append({"task": task, "average_score": round(group.score, 2)})
        else:
            delta = round(group.score - old, 2)
            known = {"task": task, "base_score": round(old, 2), "new_score": round(group.score, 2), "delta": delta}
            changes["improvements" if group.score > old else "regressions"].append(known)
    changes["improvements"].sort(key=lambda entry: -float(entry["delta"]))
    changes["regressions"].sort(key=lambda entry: float(entry["delta"]))
    rates = [error_rate(result) for result in (base, candidate) if result is not None]
    return {
        "report_title": "SKILLS EVALUATION REPORT",
        "model": candidate.model,
        "judge_model": candidate.judge,
        "max_score": "10.0",
        "trained_model_score": candidate.score,
        "base_model": None if base is None else base.model,
        "base_model_score": None if base is None else base.score,
        "error_rate": round(sum(rates) / len(rates), 6),
        "summary": json.dumps(changes),
        "summary_object": changes,
    }

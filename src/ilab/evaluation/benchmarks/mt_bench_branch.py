"""MT-Bench-Branch: the seed examples of a taxonomy's skills as questions, base and candidate marked by a judge.

Upstream's measure of new skills. The seeds are what the samples were made from, so it says whether they were learnt,
not whether the skill holds elsewhere; every result says so. A question is known by its leaf, text *and* context: two
contexts under the same question are two questions. Answers are greedy, so that a second run asks the same again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ilab.core.events import Emit
from ilab.data import Leaf, digest_text
from ilab.errors import InputError
from ilab.evaluation.benchmarks.chat_files import Question, answer_rows, file_name, write_rows
from ilab.evaluation.benchmarks.judged import result_of
from ilab.evaluation.benchmarks.mt_bench import ask, judge_turns, write_files
from ilab.evaluation.benchmarks.result import BenchmarkResult
from ilab.evaluation.judge import Judge
from ilab.evaluation.rubric import QUALITY
from ilab.evaluation.subject import Subject
from ilab.models.chat import prompt_text

NAME = "mt_bench_branch"
CATEGORY = "taxonomy"
HOW = "mean mark, 1 to 10, of the seed examples of {leaves} skill leaves"
TRAINED_ON = "the seed examples are what training was made from: this says whether they were learnt, no more"


def run_mt_bench_branch(
    questions: Sequence[Question],
    subjects: Mapping[str, Subject],
    judge: Judge,
    folder: Path,
    emit: Emit,
    *,
    branch: str = CATEGORY,
    when: datetime | None = None,
) -> dict[str, BenchmarkResult]:
    """Ask every subject the ``questions`` (of :func:`branch_questions`), judge, and write the files under ``folder``.

    The results have the keys of ``subjects``; :func:`ilab.evaluation.benchmarks.paired.branch_data` compares two of
    them. Raises ``InputError`` where no leaf is a skill or two subjects share a name; else as
    :func:`ilab.evaluation.benchmarks.mt_bench.run_mt_bench`.
    """
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

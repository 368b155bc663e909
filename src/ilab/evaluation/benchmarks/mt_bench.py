"""MT-Bench: questions of two turns in eight categories, each turn marked 1 to 10 by a judge (Zheng et al. 2023).

    turn 1 ──▶ answer ──▶ turn 2 (with turn 1 and its answer) ──▶ answer        model under test
    each turn, with what came before it ──▶ mark                                 judge

The score is the mean over the marks of both turns. Creative categories are answered at a temperature, with a seed made
of the conversation; all others greedily. The public question set is read from a file; ours (``builtin``) is small, in
our own words, and not comparable with it. A turn that the model does not answer is unscored, and so is the turn after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ilab.core.events import Emit
from ilab.core.files import read_json, write_json
from ilab.data import Judgment, Message
from ilab.errors import InputError
from ilab.evaluation.benchmarks.chat_files import (
    NO_MARK,
    Question,
    QuestionSet,
    answer_rows,
    file_name,
    stamp,
    write_judgments,
    write_rows,
)
from ilab.evaluation.benchmarks.judged import error_rate, group_of, result_of, row_of
from ilab.evaluation.benchmarks.result import BenchmarkResult, Row
from ilab.evaluation.judge import Judge
from ilab.evaluation.rubric import QUALITY, Asked, mark_prompt
from ilab.evaluation.subject import Subject

NAME = "mt_bench"
SUMMARY = "mt_bench_data.json"
ANSWER_TOKENS = 1024
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}  # others: 0

Answers = Mapping[int | str, Sequence[str | None]]


def run_mt_bench(
    questions: QuestionSet,
    subject: Subject,
    judge: Judge,
    folder: Path,
    emit: Emit,
    *,
    seed: int = 0,
    when: datetime | None = None,
) -> BenchmarkResult:
    """Ask, judge, and write FastChat's files and ``mt_bench_data.json`` under ``folder``.

    ``when`` is written into the files where it is given. Raises ``InputError`` without questions, ``ServiceError``
    where nothing could be scored, ``Stopped`` when asked to stop: what was answered and judged until then is kept.
    """
    if not questions.questions:
        raise InputError(f"the question set {questions.name} is empty")
    answers = ask(questions.questions, subject, temperatures=TEMPERATURES, seed=seed)
    turns = judge_turns(questions.questions, answers, subject.name, judge, emit)
    result = result_of(
        NAME,
        judge,
        QUALITY,
        [turn.row() for turn in turns],
        [turn.judgment for turn in turns],
        how=f"mean mark, 1 to 10, of all turns of {len(questions.questions)} questions ({questions.name})",
        notes=[questions.note] if questions.note else [],
    )
    numbers = sorted({turn.turn for turn in turns})
    by_turn = [group_of(f"turn {n}", [row for row in result.rows if row.details["turn"] == n]) for n in numbers]
    result = result.model_copy(update={"groups": (*result.groups, *by_turn)})
    write_files(folder / NAME, answers, turns, when)
    _write_summary(folder / SUMMARY, result)
    return result


def ask(
    questions: Sequence[Question], subject: Subject, *, temperatures: Mapping[str, float], seed: int
) -> dict[int | str, list[str | None]]:
    """The answers to all turns of each question, turn by turn. After a turn without answer there is none."""
    answers: dict[int | str, list[str | None]] = {question.question_id: [] for question in questions}
    for turn in range(max(len(question.turns) for question in questions)):
        open_ = [question for question in questions if turn < len(question.turns)]
        for question in open_:
            answers[question.question_id].append(None)
        asked = [question for question in open_ if None not in answers[question.question_id][:turn]]
        for temperature in sorted({temperatures.get(question.category, 0.0) for question in asked}):
            batch = [question for question in asked if temperatures.get(question.category, 0.0) == temperature]
            conversations = [_conversation(question, answers[question.question_id], turn) for question in batch]
            found = subject.answer(conversations, max_tokens=ANSWER_TOKENS, temperature=temperature, seed=seed)
            for question, answer in zip(batch, found, strict=True):
                answers[question.question_id][turn] = answer
    return answers


@dataclass(frozen=True)
class Turn:
    """One answered turn (from 1) and what the judge said of it."""

    question: Question
    turn: int
    asked: Asked
    judgment: Judgment

    def row(self) -> Row:
        details = {"question_id": self.question.question_id, "turn": self.turn}
        return row_of(self.asked, self.judgment, QUALITY, **details)

    def file_row(self, when: datetime | None) -> dict[str, Any]:
        """The row of ``model_judgment``."""
        prompt = "" if self.asked.answer is None else mark_prompt(self.asked, QUALITY).message.content
        return {
            "question_id": self.question.question_id,
            "model": self.asked.model,
            "judge": [self.judgment.judge, f"{QUALITY.name}-reference" if self.asked.reference else QUALITY.name],
            "user_prompt": prompt,
            "judgment": "\n\n".join(self.judgment.replies) or self.judgment.note,
            "score": NO_MARK if self.judgment.mark is None else round(QUALITY.mark(self.judgment.mark), 6),
            "turn": self.turn,
            "tstamp": stamp(when),
        }


def judge_turns(questions: Sequence[Question], answers: Answers, model: str, judge: Judge, emit: Emit) -> list[Turn]:
    """Every turn of ``model`` with its judgment, in the order of the questions."""
    asked: list[tuple[Question, int, Asked]] = []
    for question in questions:
        given = answers[question.question_id]
        for turn, answer in enumerate(given):
            one = Asked(
                item=f"{question.question_id}/{turn + 1}",
                leaf=question.group,
                model=model,
                question=question.turns[turn],
                answer=answer,
                reference=question.reference_of(turn),
                earlier=tuple(_conversation(question, given, turn)[:-1]),
            )
            asked.append((question, turn + 1, one))
    emit.metric(note=f"{len(asked)} answers of {model} go to the judge {judge.name}")
    judgments = judge.mark([one for _, _, one in asked], QUALITY)
    return [Turn(*about, found) for about, found in zip(asked, judgments, strict=True)]


def write_files(folder: Path, answers: Answers, turns: Sequence[Turn], when: datetime | None) -> None:
    """``model_answer`` and ``model_judgment`` of one model."""
    model, judge = turns[0].asked.model, turns[0].judgment.judge
    write_rows(folder / "model_answer" / f"{file_name(model)}.jsonl", answer_rows(model, answers, when))
    path = folder / "model_judgment" / f"{file_name(judge)}_single.jsonl"
    write_judgments(path, model, [turn.file_row(when) for turn in turns])


def report(result: BenchmarkResult, title: str) -> dict[str, Any]:
    """One model's figures under the names that InstructLab's pipeline reads."""
    turns = [group.score for group in result.groups if group.name.startswith("turn ")]
    return {
        "report_title": title,
        "model": result.model,
        "judge_model": result.judge,
        "overall_score": result.score,
        "turn_scores": ["N/A" if score is None else score for score in turns],
        "qa_scores": [qa_pair(row) for row in result.rows if row.score is not None],
        "error_rate": error_rate(result),
    }


def qa_pair(row: Row) -> dict[str, Any]:
    """One judged answer as upstream's evaluators return it."""
    return {
        "question_id": row.details["question_id"],
        "score": row.score,
        "category": row.group,
        "question": row.question,
        "answer": row.answer,
    }


def _write_summary(path: Path, result: BenchmarkResult) -> None:
    """All models judged into this folder so far, the best of them first named. Equal scores: the earlier one."""
    known = read_json(path)["reports"] if path.exists() else []
    reports = [entry for entry in known if entry["model"] != result.model]
    reports.append(report(result, "SKILLS EVALUATION REPORT"))
    best = max(reports, key=lambda entry: float(entry["overall_score"]))
    write_json(path, {"best_model": best["model"], "best_score": best["overall_score"], "reports": reports})


def _conversation(question: Question, answers: Sequence[str | None], turn: int) -> list[Message]:
    """The messages up to the question of ``turn`` (from 0)."""
    messages = []
    for text, answer in zip(question.turns[:turn], answers, strict=False):
        messages += [Message(role="user", content=text), Message(role="assistant", content=answer or "")]
    return [*messages, Message(role="user", content=question.turns[turn])]

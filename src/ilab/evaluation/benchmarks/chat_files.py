"""The files of MT-Bench in FastChat's form: questions are read, answers and judgments written.

    question.jsonl                          question_id, category, turns[], reference[]
    model_answer/<model>.jsonl              question_id, answer_id, model_id, choices[{index, turns[]}], tstamp
    reference_answer/<judge>.jsonl          the same
    model_judgment/<judge>_single.jsonl     question_id, model, judge[name, prompt], user_prompt, judgment, score, turn

Other tools know them. A judgment file is one per judge: rows of other models stay in it. What has no answer is written
``$ERROR$``, what has no mark -1, as those tools do. Times are written where they are given; else they are 0, so that
equal results are equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from ilab.core.files import write_text
from ilab.core.tables import read_table
from ilab.data import Record, digest_text
from ilab.errors import InputError

BUILTIN = "builtin"
NO_TEXT = "$ERROR$"
NO_MARK = -1
NOT_COMPARABLE = "our own small question set: not comparable with published MT-Bench scores"
_TURNS = 8  # more turns than that are no question


class Question(Record):
    """One question of one or more turns. ``reference`` has an answer for each turn, or there is none."""

    # Question files of others have columns besides.
    model_config = ConfigDict(frozen=True, extra="ignore")

    question_id: int | str
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()
    qna_file: str | None = None

    @property
    def group(self) -> str:
        """What its score belongs to: its leaf, or else its category."""
        return self.qna_file.removesuffix("/qna.yaml") if self.qna_file else self.category

    def reference_of(self, turn: int) -> str | None:
        """The reference of a turn (from 0)."""
        return self.reference[turn] or None if turn < len(self.reference) else None


@dataclass(frozen=True)
class QuestionSet:
    """Questions and where they come from; ``note`` is what must be said with every score."""

    name: str
    questions: tuple[Question, ...]
    note: str = ""


def load_questions(source: str | Path = BUILTIN) -> QuestionSet:
    """The questions of a file in FastChat's form, or our own (``builtin``). Raises ``InputError`` for a wrong row."""
    if source == BUILTIN:
        text = files("ilab.evaluation.benchmarks").joinpath("questions", f"{BUILTIN}.jsonl").read_text(encoding="utf-8")
        own = tuple(Question.model_validate_json(line) for line in text.splitlines())
        return QuestionSet(BUILTIN, own, NOT_COMPARABLE)
    path = Path(source)
    questions = tuple(_question(row, number, path) for number, row in enumerate(read_table(path), 1))
    if not questions:
        raise InputError(
            "holds no question", where=str(path), hint="one JSON object a line: question_id, category, turns"
        )
    ids = [question.question_id for question in questions]
    if twice := sorted({str(one) for one in ids if ids.count(one) > 1}):
        raise InputError(f"question_id {twice[0]} stands there more than once", where=str(path))
    return QuestionSet(path.stem, questions)


def _question(row: Mapping[str, Any], number: int, path: Path) -> Question:
    try:
        question = Question.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        message = f"row {number}: {name}: {first['msg']}"
        raise InputError(message, where=str(path), hint="it needs question_id, category and turns") from error
    if not 1 <= len(question.turns) <= _TURNS or not all(turn.strip() for turn in question.turns):
        raise InputError(f"row {number}: it needs 1 to {_TURNS} turns, none of them empty", where=str(path))
    return question


def answer_rows(
    model: str, answers: Mapping[int | str, Sequence[str | None]], when: datetime | None
) -> list[dict[str, Any]]:
    """The rows of ``model_answer``; ``answers`` are the turns by question."""
    return [
        {
            "question_id": question_id,
            "answer_id": digest_text(f"{model}\0{question_id}")[:22],
            "model_id": model,
            "choices": [{"index": 0, "turns": [NO_TEXT if text is None else text for text in turns]}],
            "tstamp": stamp(when),
        }
        for question_id, turns in answers.items()
    ]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_judgments(path: Path, model: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """The judgments of ``model`` in place of its earlier ones; those of other models stay."""
    others = [row for row in read_table(path) if row.get("model") != model] if path.exists() else []
    write_rows(path, [*others, *rows])


def file_name(name: str) -> str:
    """``name`` of a model as the name of a file: its last part where it is a path, without what a path could be."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return re.sub(r"[^\w.+-]+", "_", last).lstrip(".") or "model"


def stamp(when: datetime | None) -> float:
    """Seconds since 1970, 0 where no time is told."""
    return 0.0 if when is None else when.timestamp()

"""The same questions to several models: what was expected, and what each of them answers.

Greedy answers under each model's own chat template, one model in memory at a time. An answer is kept by the contents of
model and question, so an interrupted comparison goes on, and a base is asked once for all that is tuned from it. The
word overlap (token F1) is a hint for the eye and no evaluation: the questions may well have been trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ilab.artifacts import Report
from ilab.core.files import write_text
from ilab.core.step import Counts, Site
from ilab.data import TrainingRow
from ilab.errors import InputError
from ilab.evaluation.answers import token_f1
from ilab.evaluation.subject import Answered, local_subject

TABLE, TEXT = "answers.jsonl", "answers.md"
EMPTY = "(nothing)"


def compare_answers(
    models: Mapping[str, Path], questions: Sequence[TrainingRow], max_tokens: int, out: Report, site: Site
) -> Counts:
    """Ask every model (name to folder) every question; write the answers as JSON lines and as a page to read.

    A row is ``question``, ``expected`` and one answer under each model's name.
    """
    questions = [row for row in questions if row.messages and row.messages[-1].role == "assistant"]
    if not questions:
        raise InputError("none of these rows is a question with its answer", hint="give conversations, not plain text")
    answers = {name: ask(name, folder, questions, max_tokens, site) for name, folder in models.items()}
    rows: list[dict[str, str]] = [
        {
            "question": _question(row),
            "expected": row.messages[-1].content.strip(),
            **{name: found[number].shown for name, found in answers.items()},
        }
        for number, row in enumerate(questions)
    ]
    overlap = {name: _mean([token_f1(row[name], row["expected"]) for row in rows]) for name in models}
    out.write({"questions": len(rows), "models": list(models), "overlap": overlap, "answers": rows})
    write_text(out.path / TABLE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_text(out.path / TEXT, page(rows))
    return {"models": len(models), "questions": len(rows)}


def page(rows: Sequence[Mapping[str, str]]) -> str:
    """The answers as Markdown: a heading for each question, a line for each answer."""
    parts = []
    for row in rows:
        lines = [f"{name}: {' '.join(text.split()) or EMPTY}" for name, text in row.items() if name != "question"]
        parts.append("\n\n".join([f"### {' '.join(row['question'].split())}", *lines]))
    return "\n\n".join(parts) + "\n"


def ask(name: str, folder: Path, questions: Sequence[TrainingRow], max_tokens: int, site: Site) -> list[Answered]:
    """The answers of the model in ``folder`` in the order of ``questions``, each without its last turn.

    One that cannot be asked keeps the reason. Raises ``Stopped`` between two of them.
    """
    subject = local_subject(name, folder, site)
    return subject.asked([row.messages[:-1] for row in questions], max_tokens=max_tokens)


def _question(row: TrainingRow) -> str:
    return next((one.content for one in reversed(row.messages) if one.role == "user"), "").strip()


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / max(len(values), 1), 4)

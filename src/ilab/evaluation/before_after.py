"""The same questions to several models: what was expected, and what each of them answers.

Greedy answers under each model's own chat template, one model in memory at a time. An answer is kept by the contents of
model and question, so an interrupted comparison goes on, and a base is asked once for all that is tuned from it. The
word overlap (token F1) is a hint for the eye and no evaluation: the questions may well have been trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilab.artifacts import Report
from ilab.core.files import write_text
from ilab.core.step import Counts, Site, fingerprint
from ilab.core.store import digest_tree
from ilab.data import Message, TrainingRow
from ilab.errors import InputError, Stopped
from ilab.evaluation.answers import token_f1

ASKING = 1  # raised together with the version of the step `answers`
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
            **{name: found[number] for name, found in answers.items()},
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


def ask(name: str, folder: Path, questions: Sequence[TrainingRow], max_tokens: int, site: Site) -> list[str]:
    """The answers of the model in ``folder`` in the order of ``questions``. Raises ``Stopped`` between two of them."""
    memo, digest = site.memo("answers"), digest_tree(folder)
    prompts = [row.messages[:-1] for row in questions]
    keys = [fingerprint(ASKING, digest, [one.model_dump() for one in prompt], max_tokens) for prompt in prompts]
    found: list[str] = []
    model: Any = None
    for number, (key, prompt) in enumerate(zip(keys, prompts, strict=True), 1):
        answer = memo.get(key)
        if answer is None:
            if site.stopping():
                raise Stopped("asking stopped", hint="the answers so far are kept; run the same command to go on")
            model = model or _load(folder, site)
            answer = _answer(model, prompt, max_tokens)
            memo.put(key, answer)
        found.append(answer)
        site.emit.progress(number, len(questions), "questions", note=f"{name}: {answer}")
    return found


def _load(folder: Path, site: Site) -> Any:
    from ilab.models.device import pick_device
    from ilab.models.local import LocalModel

    return LocalModel.load(folder, pick_device(site.where.device), site.where.threads)


def _answer(model: Any, prompt: Sequence[Message], max_tokens: int) -> str:
    from ilab.models.local import Answer, ContextError, Sampling

    try:
        return "".join(Answer.to(model, prompt, Sampling(max_tokens=max_tokens))).strip()
    except ContextError as error:  # one long question is no reason to ask none
        return f"(not asked: {error.message})"


def _question(row: TrainingRow) -> str:
    return next((one.content for one in reversed(row.messages) if one.role == "user"), "").strip()


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / max(len(values), 1), 4)

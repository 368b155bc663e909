"""DK-Bench: a user's own questions with reference answers, marked 1 to 5 for correctness by a judge.

    questions.jsonl / .csv / .xlsx    user_input, reference, and where the answers are there already: response
    <model>/results_<time>.<form>     user_input, response, reference, scores (and model_name, timestamp)

Rows that bring a response are judged as they are; the others are asked of the model. An answer that could not be marked
has no score and is in no average. Spreadsheets get a second sheet with average, total and median; cells that a
spreadsheet would take for a formula are neutralised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from ilab.core.events import Emit
from ilab.core.tables import read_table
from ilab.data import Message, digest_text, short
from ilab.errors import InputError
from ilab.evaluation.benchmarks.chat_files import file_name
from ilab.evaluation.benchmarks.judged import result_of, row_of
from ilab.evaluation.benchmarks.result import BenchmarkResult
from ilab.evaluation.benchmarks.sheets import check_form, read_sheet, write_csv, write_jsonl, write_sheet
from ilab.evaluation.drawn import drawn
from ilab.evaluation.judge import Judge
from ilab.evaluation.rubric import CORRECTNESS, Asked
from ilab.evaluation.subject import Subject

NAME = "dk_bench"
NO_MODEL = "no-model-provided"
ANSWER_TOKENS = 768
COLUMNS = ("user_input", "response", "reference", "scores")


@dataclass(frozen=True)
class How:
    """How the model is asked, and how many questions at most (``limit``, drawn by ``seed``).

    ``when`` goes into the names of the files and into their rows, where it is given.
    """

    system_prompt: str = ""
    temperature: float = 0.0
    seed: int = 42
    limit: int | None = None
    when: datetime | None = None


@dataclass(frozen=True)
class Entry:
    """One row of the input. ``id`` is the hash of question and reference, numbered where the same stands there again.

    ``response`` is None without such a column, empty where its cell is.
    """

    id: str
    question: str
    reference: str
    response: str | None = None


def run_dk_bench(
    path: Path,
    subject: Subject | None,
    judge: Judge,
    folder: Path,
    formats: Sequence[str],
    emit: Emit,
    how: How = How(),
) -> BenchmarkResult:
    """Ask what has no response, judge, and write the results in each of ``formats`` (jsonl, csv, xlsx).

    Raises ``InputError`` for a file that is no such table or rows without response where there is no model,
    ``SetupError`` for xlsx without openpyxl (before anything is asked), ``ServiceError`` where nothing could be scored.
    """
    for form in formats:
        check_form(form)
    every = load_entries(path)
    entries = drawn(every, how.limit, how.seed, lambda entry: (NAME, entry.id))
    model = NO_MODEL if subject is None else subject.name
    asked = [
        Asked(entry.id, NAME, model, entry.question, answer, reference=entry.reference)
        for entry, answer in zip(entries, _responses(entries, subject, path, how), strict=True)
    ]
    emit.metric(note=f"{len(asked)} answers of {model} go to the judge {judge.name}")
    judgments = judge.mark(asked, CORRECTNESS)
    rows = [row_of(one, found, CORRECTNESS) for one, found in zip(asked, judgments, strict=True)]
    said = f"mean mark, 1 to 5, of {len(rows)} questions of {path.name}"
    notes = [f"{len(rows)} of {len(every)} questions"] if len(rows) < len(every) else []
    result = result_of(NAME, judge, CORRECTNESS, rows, judgments, how=said, notes=notes)
    write_results(folder / file_name(model), result, formats, how.when)
    return result


def load_entries(path: Path) -> list[Entry]:
    """The questions of a file. Raises ``InputError`` that names the row, ``SetupError`` for xlsx without openpyxl."""
    table = read_sheet(path) if path.suffix.lower() == ".xlsx" else read_table(path)
    seen: dict[str, int] = {}
    entries = [_entry(row, number, path, seen) for number, row in enumerate(table, 1)]
    if not entries:
        raise InputError(
            "holds no question", where=str(path), hint="columns: user_input, reference, and response if known"
        )
    return entries


def totals(result: BenchmarkResult) -> dict[str, float | None]:
    """``average``, ``total`` and ``median`` of the scored questions."""
    scores = [row.score for row in result.rows if row.score is not None]
    return {"average": result.score, "total": round(sum(scores), 6), "median": median(scores) if scores else None}


def write_results(folder: Path, result: BenchmarkResult, formats: Sequence[str], when: datetime | None) -> None:
    """``results_<time>`` in each form; just ``results`` where no time is told."""
    time = "" if when is None else when.astimezone(UTC).isoformat(timespec="seconds")
    stem = f"results_{time.replace(':', '-').removesuffix('+00-00')}" if time else "results"
    more = {"model_name": result.model, "timestamp": time}
    rows = [
        dict(zip(COLUMNS, (row.question, row.answer, row.reference, row.score), strict=True)) for row in result.rows
    ]
    for form in formats:
        path = folder / f"{stem}.{form}"
        if form == "xlsx":
            summary: list[tuple[str, Any]] = list(totals(result).items())
            summary += [(f"question {number}", row.score) for number, row in enumerate(result.rows, 1)]
            write_sheet(path, {"Results": [COLUMNS, *(tuple(row.values()) for row in rows)], "Summary": summary})
        else:
            write = write_csv if form == "csv" else write_jsonl
            write(path, [{**row, **more} for row in rows])


def _responses(entries: Sequence[Entry], subject: Subject | None, path: Path, how: How) -> Iterator[str | None]:
    """The answer to each entry: the response that it brings, else the model's. Without a model a blank one is blank."""
    missing = [entry for entry in entries if not entry.response]
    brought = len(missing) < len(entries) and all(entry.response is not None for entry in entries)
    if missing and subject is None and not brought:
        raise InputError(
            f"{len(missing)} of {len(entries)} questions have no response, and no model is given to answer them",
            where=str(path),
            hint="add --model MODEL, or a column response",
        )
    found: dict[str, str | None] = {entry.id: entry.response for entry in entries}
    if subject is not None and missing:
        system = [Message(role="system", content=how.system_prompt)] if how.system_prompt else []
        asked = [[*system, Message(role="user", content=entry.question)] for entry in missing]
        given = subject.answer(asked, max_tokens=ANSWER_TOKENS, temperature=how.temperature, seed=how.seed)
        found.update(zip([entry.id for entry in missing], given, strict=True))
    return iter(found.values())


def _entry(row: Mapping[str, Any], number: int, path: Path, seen: dict[str, int]) -> Entry:
    texts = ["" if row.get(name) is None else str(row[name]).strip() for name in ("user_input", "reference")]
    for name, text in zip(("user_input", "reference"), texts, strict=True):
        if not text:
            hint = "columns: user_input, reference, and response if known"
            raise InputError(f"row {number}: {name} is missing", where=str(path), hint=hint)
    content = short(digest_text("\0".join(texts)))
    seen[content] = seen.get(content, 0) + 1
    response = str(row["response"] or "").strip() if "response" in row else None
    return Entry(content if seen[content] == 1 else f"{content}-{seen[content]}", texts[0], texts[1], response)

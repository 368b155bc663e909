"""Training data that somebody gives as a file, as rows of a dataset (:mod:`ilab.training.records` reads the file).

A row's id is a hash of what it says, so neither the file's name nor the order of its rows is part of anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from ilab.core.step import Found, fingerprint
from ilab.core.store import digest_file
from ilab.data import Message, Role, TrainingRow, TrainOn, Turn, short
from ilab.errors import InputError
from ilab.training.records import EXPECTED, RawSample, read_samples

ROLES = (*get_args(Role), "tool")


def find_rows(locator: str, folder: Path) -> Found:
    """Resolve a file of training data, relative to ``folder``. Reads and checks all of it.

    Raises ``InputError`` with file and line of the first row that is wrong, and for a file with no row to learn from.
    """
    path = folder / Path(locator).expanduser()
    if not path.is_file():
        raise InputError("there is no such file of training data", where=str(path), hint="data: a .jsonl file")
    count = learnt = 0
    for raw in read_samples(path):
        count += 1
        learnt += _teaches(_row(raw, ""))
    if not count:
        raise InputError("this file of training data is empty", where=str(path), hint=EXPECTED)
    if not learnt:
        raise InputError(
            f"none of the {count} rows of this file has an answer of the assistant's, so there is nothing to learn",
            where=str(path),
            hint=EXPECTED,
        )
    return Found(f"rows:{digest_file(path)}", locator, details={"path": str(path)})


def rows_of(digest: str, found: Found) -> tuple[list[TrainingRow], int]:
    """The rows of a plan's file and how many were left out for want of an answer.

    Raises ``InputError`` where the file has changed since the plan was made.
    """
    path = Path((found.details or {})["path"])
    if f"rows:{digest_file(path)}" != digest:
        raise InputError("the data has changed since the run began", where=str(path), hint="run the same command again")
    name = f"given/{short(digest.removeprefix('rows:'))}"
    seen: dict[str, int] = {}
    rows: list[TrainingRow] = []
    empty = 0
    for raw in read_samples(path):
        row = _row(raw, name)
        if not _teaches(row):
            empty += 1
            continue
        seen[row.id] = seen.get(row.id, 0) + 1
        rows.append(row if seen[row.id] == 1 else row.model_copy(update={"id": f"{row.id}~{seen[row.id]}"}))
    return rows, empty


def stacked(datasets: Mapping[str, list[TrainingRow]]) -> list[TrainingRow]:
    """All rows of all datasets as one, in the order of their names; a row that is there already comes once.

    A phase's replay of an earlier phase is what the earlier phase has anyway, so it is left out.
    """
    found: dict[str, TrainingRow] = {}
    for name in sorted(datasets):
        for row in datasets[name]:
            if row.source != "replay":
                found.setdefault(row.id, row)
    return list(found.values())


def _row(raw: RawSample, leaf: str) -> TrainingRow:
    """One row of a file. Raises ``InputError`` with its line for a message that no phase trains on."""
    messages = tuple(_message(one, number, raw.where) for number, one in enumerate(raw.messages, 1))
    answers = sum(message.role == "assistant" for message in messages)
    # Where there is one answer it is the last one too, and rows of all forms that say the same are the same.
    train_on: TrainOn = "all" if raw.unmask else "last" if raw.last and answers > 1 else "assistant"
    said: list[Any] = [[one.model_dump(exclude_none=True) for one in messages], train_on]
    said += [{"tools": raw.tools}] if raw.tools else []
    said += [{"text": raw.text}] if raw.text is not None else []
    sample = f"{leaf}#{fingerprint(*said)[:16]}"
    return TrainingRow(
        id=sample,
        leaf=leaf,
        source="given",
        sample=sample,
        messages=messages,
        text=raw.text,
        tools=tuple(dict(tool) for tool in raw.tools) or None,
        train_on=train_on,
    )


def _teaches(row: TrainingRow) -> bool:
    """Whether there is anything to learn: a text, or an answer of the assistant's that says or calls something."""
    if row.text is not None:
        return bool(row.text.strip())
    return any(
        one.role == "assistant" and bool(one.content.strip() or getattr(one, "tool_calls", None))
        for one in row.messages
    )


def _message(value: Mapping[str, Any], number: int, where: str) -> Message | Turn:
    if value.get("role") not in ROLES:
        raise InputError(
            f"message {number}: there is no role {value.get('role')!r:.40}",
            where=where,
            hint=f"roles are {', '.join(ROLES)}",
        )
    return (Message if value.keys() <= Message.model_fields.keys() else Turn).model_validate(value)

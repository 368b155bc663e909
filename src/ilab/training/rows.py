"""Training data that somebody gives as a file: JSON lines, checked line by line, identified by what they say.

    {"messages": [{"role", "content"}, …], "unmask": false}     InstructLab, OpenAI, TRL
    {"system": …, "user": …, "assistant": …}                    InstructLab's first trainers

All rows of a file are of one form. A row's id is a hash of what it says, so neither the file's name nor the order of
its rows is part of anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ilab.core.step import Found, fingerprint
from ilab.core.store import digest_file
from ilab.data import Message, Role, TrainingRow, TrainOn, short
from ilab.errors import InputError

ROLES = get_args(Role)
FORM = 'a row is {"messages": [{"role", "content"}, …]} or {"system", "user", "assistant"}, all rows of a file alike'


@dataclass(frozen=True)
class Conversation:
    """What one row says and what is trained on; ``form`` is the form that it has."""

    messages: tuple[Message, ...]
    train_on: TrainOn
    form: str

    @property
    def answered(self) -> bool:
        """Whether there is anything to learn: the last to speak is the assistant, and says something."""
        last = self.messages[-1]
        return last.role == "assistant" and bool(last.content.strip())


def find_rows(locator: str, folder: Path) -> Found:
    """Resolve a file of training data, relative to ``folder``. Reads and checks all of it.

    Raises ``InputError`` with file and line of the first row that is wrong, and for a file with no row to learn from.
    """
    path = folder / Path(locator).expanduser()
    if not path.is_file():
        raise InputError("there is no such file of training data", where=str(path), hint="data: a .jsonl file")
    if not sum(found.answered for found in conversations(path)):
        raise InputError("there is no row to train on in this file", where=str(path), hint=FORM)
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
    for conversation in conversations(path):
        if not conversation.answered:
            empty += 1
            continue
        identity = fingerprint([one.model_dump() for one in conversation.messages], conversation.train_on)[:16]
        seen[identity] = seen.get(identity, 0) + 1
        sample = f"{name}#{identity}"
        rows.append(
            TrainingRow(
                id=sample + (f"~{seen[identity]}" if seen[identity] > 1 else ""),
                leaf=name,
                source="given",
                sample=sample,
                messages=conversation.messages,
                train_on=conversation.train_on,
            )
        )
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


def conversations(path: Path) -> Iterator[Conversation]:
    """Every row of a file. Raises ``InputError`` with file and line of the first that is wrong."""
    form = ""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    found = _conversation(raw, f"{path}:{number}")
                    if form and found.form != form:
                        raise InputError(
                            f"this row has {found.form}, the rows before it have {form}",
                            where=f"{path}:{number}",
                            hint=FORM,
                        )
                    form = found.form
                    yield found
    except OSError as error:
        raise InputError(f"the data cannot be read: {error.strerror}", where=str(path)) from error


def _conversation(raw: bytes, where: str) -> Conversation:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a line of JSON: {error}", where=where, hint=FORM) from error
    if not isinstance(row, dict):
        raise InputError("a row is a JSON object", where=where, hint=FORM)
    if isinstance(row.get("messages"), list) and row["messages"]:
        messages = tuple(_message(one, where) for one in row["messages"])
        whole = row.get("unmask") is True or row.get("train_on") == "all"
        return Conversation(messages, "all" if whole else "assistant", "messages")
    if "user" in row and "assistant" in row:
        roles = [role for role in ROLES if row.get(role) or role == "user"]
        return Conversation(
            tuple(_message({"role": role, "content": row[role]}, where) for role in roles), "assistant", "user"
        )
    raise InputError("this is no row of training data", where=where, hint=FORM)


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise InputError(f"a message has a role and a text, not {value!r:.80}", where=where, hint=FORM)
    if value.get("role") not in ROLES:
        raise InputError(
            f"there is no role {value.get('role')!r:.40}", where=where, hint=f"roles are {', '.join(ROLES)}"
        )
    return Message(role=value["role"], content=value["content"])

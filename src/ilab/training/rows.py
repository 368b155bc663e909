"""Training data that somebody gives as a file, as rows of a dataset (:mod:`ilab.training.records` reads the file).

A row's id is a hash of what it says, so neither the file's name nor the order of its rows is part of anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ilab.core.step import Found, fingerprint
from ilab.core.store import digest_file
from ilab.data import Message, Role, TrainingRow, TrainOn, short
from ilab.errors import InputError
from ilab.training.records import read_samples

ROLES = get_args(Role)
FORM = 'a row is {"messages": [{"role", "content"}, …]}, {"system", "user", "assistant"} or {"prompt", "completion"}'


@dataclass(frozen=True)
class Conversation:
    """What one row says and what is trained on."""

    messages: tuple[Message, ...]
    train_on: TrainOn

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
    """Every row of a file, as :mod:`ilab.training.records` reads it.

    Raises ``InputError`` with file and line of the first that is wrong.
    """
    for raw in read_samples(path):
        if raw.text is not None or raw.tools:
            what = "plain text" if raw.text is not None else "a conversation with tools"
            raise InputError(f"this row is {what}, which a phase does not train on", where=raw.where, hint=FORM)
        yield Conversation(
            tuple(_message(one, raw.where) for one in raw.messages), "all" if raw.unmask else "assistant"
        )


def _message(value: Mapping[str, Any], where: str) -> Message:
    if value.get("role") not in ROLES:
        raise InputError(
            f"there is no role {value.get('role')!r:.40}", where=where, hint=f"roles are {', '.join(ROLES)}"
        )
    return Message(role=value["role"], content=value["content"])

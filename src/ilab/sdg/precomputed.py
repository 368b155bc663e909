"""Datasets that somebody made before: JSON lines of conversations, checked line by line and never held in memory.

    {"messages": [{"role", "content"}, …], "metadata": …, "id": "…", "unmask": false}     instructlab-sdg, OpenAI, TRL
    {"prompt": "…", "completion": "…"}                                                    TRL; also lists of messages

``unmask: true`` trains on the user's text too. A row without an answer is left out and counted, as upstream does. A
row's id is its own, else a hash of what it says, below the hash of the whole file: neither the file's name nor its
place is part of anything. A file is read twice, once for its ids and once for the rows that were chosen.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ilab.core.step import fingerprint
from ilab.data import Message, Role, TrainingRow, TrainOn, seed_from, short
from ilab.errors import InputError

ROLES = get_args(Role)
FORM = 'a row is {"messages": [{"role": …, "content": …}, …]} or {"prompt": "…", "completion": "…"}'
Size = int | float  # how many rows: an int is a count, a float a share of those there are (1.0 is all)


@dataclass(frozen=True)
class Conversation:
    """One row of a file: who says what, what is trained on, and its id inside the file."""

    id: str
    messages: tuple[Message, ...]
    train_on: TrainOn


@dataclass(frozen=True)
class Precomputed:
    """A file that has been read through: ``digest`` of its bytes, ``ids`` of its rows in order, ``empty`` left out."""

    path: Path
    digest: str
    ids: tuple[str, ...]
    empty: int

    @property
    def name(self) -> str:
        """What stands where other rows have their leaf."""
        return f"precomputed/{short(self.digest)}"

    def rows(self, wanted: int, seed: int, system: str | None = None) -> Iterator[TrainingRow]:
        """``wanted`` rows: all equally often, what remains chosen by id, so none twice where there are enough.

        ``system`` takes the place of a row's own system message, which was written for another model.
        """
        times, rest = divmod(wanted, len(self.ids)) if self.ids else (0, 0)
        ranked = ((seed_from(identity, seed), identity) for identity in self.ids) if rest else ()
        once_more = {identity for _, identity in heapq.nsmallest(rest, ranked)}
        for identity, found in zip(self.ids, _conversations(self.path), strict=True):
            messages = found.messages if system is None else with_system(found.messages, system)
            for time in range(times + (identity in once_more)):
                yield TrainingRow(
                    id=f"{self.name}#{identity}" + (f"~{time + 1}" if time else ""),
                    leaf=self.name,
                    source="precomputed",
                    sample=f"{self.name}#{identity}",
                    messages=messages,
                    train_on=found.train_on,
                )


def count_of(size: Size, found: int) -> int:
    """How many rows ``size`` asks for where ``found`` are there."""
    return size if isinstance(size, int) else round(size * found)


def with_system(messages: tuple[Message, ...], system: str) -> tuple[Message, ...]:
    """``messages`` under the system message ``system`` and no other."""
    return (Message(role="system", content=system), *(one for one in messages if one.role != "system"))


def survey(path: Path) -> Precomputed:
    """Read a file through and check every line. Raises ``InputError`` with file and line of the first that is wrong."""
    digest = hashlib.sha256()
    known: set[str] = set()
    ids = []
    empty = 0
    for raw, found in _lines(path):
        digest.update(raw)
        if found is None:
            empty += bool(raw.strip())
            continue
        identity, number = found.id, 1
        while identity in known:
            number += 1
            identity = f"{found.id}.{number}"
        known.add(identity)
        ids.append(identity)
    if not ids:
        raise InputError("there is no row in this dataset", where=str(path), hint=FORM)
    return Precomputed(path, digest.hexdigest(), tuple(ids), empty)


def _conversations(path: Path) -> Iterator[Conversation]:
    return (found for _, found in _lines(path) if found is not None)


def _lines(path: Path) -> Iterator[tuple[bytes, Conversation | None]]:
    """Every line as it stands, with its conversation; None for a blank line and for a row that says nothing."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                yield raw, _conversation(raw, f"{path}:{number}") if raw.strip() else None
    except OSError as error:
        raise InputError(f"the dataset cannot be read: {error.strerror}", where=str(path)) from error


def _conversation(raw: bytes, where: str) -> Conversation | None:
    try:
        row = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a line of JSON: {error}", where=where, hint=FORM) from error
    if not isinstance(row, dict):
        raise InputError("a row is a JSON object", where=where, hint=FORM)
    messages = tuple(_message(one, where) for one in _turns(row, where))
    unmask = row.get("unmask")
    if unmask is not None and not isinstance(unmask, bool):
        raise InputError(f"unmask is true or false, not {unmask!r}", where=where)
    if not all(message.content.strip() for message in messages if message.role != "system"):
        return None
    _check_order(messages, where)
    train_on: TrainOn = "all" if unmask else "assistant"
    return Conversation(_identity(row, messages, train_on, where), messages, train_on)


def _turns(row: dict[str, Any], where: str) -> list[Any]:
    """The messages of a row, in whichever form it has."""
    if "messages" in row:
        if not isinstance(row["messages"], list) or not row["messages"]:
            raise InputError("messages is a list of at least one message", where=where, hint=FORM)
        return list(row["messages"])
    if "prompt" in row and "completion" in row:
        return [*_side(row["prompt"], "user", where), *_side(row["completion"], "assistant", where)]
    raise InputError("a row has neither messages nor prompt and completion", where=where, hint=FORM)


def _side(value: Any, role: Literal["user", "assistant"], where: str) -> list[Any]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return value
    raise InputError(f"prompt and completion are texts, or lists of messages, not {value!r:.80}", where=where)


def _message(value: Any, where: str) -> Message:
    """Raises ``InputError`` for anything but text by a known role: tool calls and images would be lost silently."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise InputError(f"a message has a role and a text as its content, not {value!r:.80}", where=where, hint=FORM)
    more = sorted(name for name, given in value.items() if name not in ("role", "content") and given)
    if more:
        raise InputError(f"a message has {more[0]!r}, which cannot be trained on", where=where, hint="remove it")
    if value.get("role") == "pretraining":
        raise InputError(
            "the role 'pretraining' is that of files made before instructlab-sdg 0.8",
            where=where,
            hint='write its turns as messages of user and assistant, with "unmask": true',
        )
    if value.get("role") not in ROLES:
        raise InputError(
            f"there is no role {value.get('role')!r:.40}", where=where, hint=f"roles are {', '.join(ROLES)}"
        )
    return Message(role=value["role"], content=value["content"])


def _check_order(messages: tuple[Message, ...], where: str) -> None:
    """A system message or none, then user and assistant in turn, the assistant last."""
    roles = [message.role for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        raise InputError(
            f"the messages are by {', '.join(roles)}",
            where=where,
            hint="user and assistant speak in turn, from user on",
        )


def _identity(row: dict[str, Any], messages: tuple[Message, ...], train_on: TrainOn, where: str) -> str:
    given = row.get("id")
    if given is None or given == "":
        return short(fingerprint([message.model_dump() for message in messages], train_on))
    if not isinstance(given, (str, int)) or isinstance(given, bool):
        raise InputError(f"an id is a text or a number, not {given!r:.40}", where=where)
    return str(given)

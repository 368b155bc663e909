"""Conversations on disk: session files, which people save and load, and logs, which are always kept.

A session file is InstructLab's: a JSON list of ``{role, content}``, the system message included. A log has a JSON
object a line, one for each message as it is said; it is only ever appended to, so whatever ends the chat, no message
before the last is lost. Its last conversation can be
loaded as a session file can.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from ilab.core.files import write_text
from ilab.data import Message
from ilab.errors import InputError, SetupError

LARGEST = 64 << 20  # bytes of a session file
_MESSAGES = TypeAdapter(list[Message])


class _Line(BaseModel):
    """A line of a log, so far as it is read again."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    begins: bool = False  # the first message of a conversation


def read_session(path: Path) -> list[Message]:
    """The messages of a session file, or of a log. Raises ``InputError`` where it is none."""
    try:
        if path.is_file() and path.stat().st_size > LARGEST:
            raise InputError("this file is too large for a saved conversation", where=str(path))
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"this file cannot be read: {error.strerror}", where=str(path)) from error
    try:
        return _of_log(raw) if raw.lstrip()[:1] == b"{" else _MESSAGES.validate_json(raw)
    except ValidationError as error:
        raise InputError(
            "this is no saved conversation", where=str(path), hint="give a file that /s wrote, or a new name"
        ) from error


def write_session(path: Path, messages: Sequence[Message]) -> None:
    """Write a session file. Only a session file is ever written over; another is an ``InputError``."""
    if path.exists():
        read_session(path)
    text = json.dumps([message.model_dump() for message in messages], indent=4, ensure_ascii=False)
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise InputError(f"this file cannot be written: {error.strerror}", where=str(path)) from error


class ChatLog:
    """The log of one chat, in ``folder``. The file is made with the first message, for its owner alone."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._now = now
        self.path: Path | None = None

    def add(self, message: Message, model: str = "", *, begins: bool = False) -> None:
        """Append a message, to the disk; ``begins``: a conversation begins with it. Raises ``SetupError`` where the
        folder cannot be written."""
        more = {**({"model": model} if model else {}), **({"begins": True} if begins else {})}
        said = {"time": _iso(self._now()), **more, **message.model_dump()}
        line = json.dumps(said, ensure_ascii=True) + "\n"  # lone surrogates cannot be written otherwise
        try:
            if self.path is None:
                self.path = self._new()
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            try:
                os.write(handle, line.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise SetupError(
                f"the chat cannot be logged: {error.strerror}",
                where=str(self.path or self._folder),
                hint="give another folder: ilab config set chat.logs_dir DIR",
            ) from error

    def _new(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"chat_{_iso(self._now()).replace(':', '-')}"
        for number in range(1000):
            path = self._folder / (f"{name}.log" if not number else f"{name}.{number}.log")
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            except FileExistsError:
                continue
            return path
        raise FileExistsError(17, "a thousand chats began in the same second", str(path))


def _of_log(raw: bytes) -> list[Message]:
    """The last conversation of a log; a last line that was cut off is left out."""
    messages: list[Message] = []
    for line in raw.split(b"\n")[:-1]:
        if line.strip():
            said = _Line.model_validate_json(line)
            messages = [*([] if said.begins else messages), Message(role=said.role, content=said.content)]
    return messages


def _iso(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))

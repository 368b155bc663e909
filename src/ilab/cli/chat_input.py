"""Where a chat's lines come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT = ">>> "


class Lines(Protocol):
    """Gives one question or command after the other."""

    multiline: bool  # whether every question may have several lines
    once: bool  # whether the next one may

    def read(self) -> str | None:
        """The next that is not empty, None at the end. Ctrl-C on an empty line raises ``KeyboardInterrupt``."""
        ...


class PipedLines:
    """From standard input, without a prompt. A question of several lines ends at an empty one."""

    def __init__(self) -> None:
        self.multiline = self.once = False

    def read(self) -> str | None:
        several, self.once = self.multiline or self.once, False
        found: list[str] = []
        while line := sys.stdin.buffer.readline():
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if text.strip():
                found.append(text)
            command = len(found) == 1 and text.startswith("/")
            if found and (not several or command or not text.strip()):
                break
        return "\n".join(found) or None


class TypedLines:
    """From a terminal, with history, completion and the keys of Emacs or vi.

    ``status`` stands at the right; ``words`` gives what may stand behind a command, by command; those in ``files`` take
    a file.
    """

    def __init__(
        self,
        history: Path,
        vi: bool,
        status: Callable[[], str],
        words: Callable[[], Mapping[str, Sequence[str]]],
        files: Sequence[str],
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition

        self.multiline = self.once = False
        self._status = status
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=_completer(words, files),
            complete_while_typing=False,
            vi_mode=vi,
            multiline=Condition(lambda: self.multiline or self.once),
            prompt_continuation="... ",
            rprompt=self._right,
            key_bindings=_keys(),
        )

    def read(self) -> str | None:
        try:
            while True:
                if text := self._session.prompt(PROMPT).strip():
                    return text
        except EOFError:
            return None
        finally:
            self.once = False

    def _right(self) -> str:
        return f"{'[M]' if self.multiline or self.once else '[S]'}{self._status()}"


def _keys() -> KeyBindings:
    """Ctrl-C empties a line, and leaves on an empty one."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        buffer = event.app.current_buffer
        if buffer.text:
            buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return keys


def _history(path: Path) -> History:
    """What was typed before, in a file for its owner alone; in memory where that file cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        click.echo(f"note: what you type is not remembered: {path}: {error.strerror}", err=True)
        return InMemoryHistory()
    return FileHistory(str(path))


def _completer(words: Callable[[], Mapping[str, Sequence[str]]], files: Sequence[str]) -> Completer:
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    paths = PathCompleter(expanduser=True)

    class Commands(Completer):
        """Commands at the beginning of a line, then what they take."""

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            text = document.text_before_cursor
            known = words()
            word, space, rest = text.partition(" ")
            if not space:
                matching = [name for name in known if text and name.startswith(text)]
                yield from (Completion(name, start_position=-len(text)) for name in matching)
            elif word in files:
                yield from paths.get_completions(Document(rest, len(rest)), complete_event)
            else:
                fitting = [name for name in known.get(word, ()) if name.startswith(rest)]
                yield from (Completion(name, start_position=-len(rest)) for name in fitting)

    return Commands()

"""What a line that begins with ``/`` does. It is a table: a command's words, what it takes, what it does.

``run`` changes the session and says what is to be shown; showing it, and what concerns the keyboard, is the caller's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ilab.chat.session import ChatSession
from ilab.chat.talkers import Talker
from ilab.data import Message
from ilab.errors import InputError

Kind = Literal["text", "box", "plain", "markdown", "about", "messages", "multiline", "multiline-toggle", "quit"]
LEAVE = ("quit", "exit")  # without a slash; only alone on the line


@dataclass(frozen=True)
class Outcome:
    """What is to be done: show ``text`` (as a note, an answer in a box, plain or as Markdown) or ``messages``, tell
    about the model, take several lines for the next question or from now on, or quit."""

    kind: Kind
    text: str = ""
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Command:
    """``takes`` is what stands behind the word: ``FILE``, ``NAME``; in brackets where it may be missing."""

    word: str
    takes: str
    does: str


COMMANDS = (
    Command("/h", "", "show this help"),
    Command("/q", "", "leave; so do quit, exit and Ctrl-D"),
    Command("/n", "", "begin a new conversation, or the one loaded with /L or -s again"),
    Command("/N", "", "begin a new conversation, without what was loaded"),
    Command("/m", "", "take several lines for the next question; Esc Enter ends it"),
    Command("/M", "", "take several lines for every question, or no longer"),
    Command("/c", "CONTEXT", "begin a new conversation under another system prompt"),
    Command("/lc", "", "list the contexts with their system prompts"),
    Command("/a", "MODEL", "talk to another model"),
    Command("/d", "[N]", "show the last answer again, or the N-th last, in a box"),
    Command("/p", "[N]", "the same, as plain text"),
    Command("/md", "[N]", "the same, with its Markdown drawn"),
    Command("/s", "FILE", "save the conversation"),
    Command("/l", "FILE", "load a conversation and go on with it"),
    Command("/L", "FILE", "the same, and come back to it with /n"),
    Command("/about", "", "what the model was made from, and how well it does"),
)
WORDS = tuple(command.word for command in COMMANDS)
_SHOWN: dict[str, Kind] = {"/d": "box", "/p": "plain", "/md": "markdown"}


def help_text() -> str:
    """All commands, a line each."""
    width = max(len(f"{command.word} {command.takes}") for command in COMMANDS)
    return "\n".join(f"{f'{command.word} {command.takes}':<{width}}  {command.does}" for command in COMMANDS)


class Commands:
    """The commands over ``session``. ``switch`` gives the talker for ``/a NAME``; without it there is only one."""

    def __init__(self, session: ChatSession, switch: Callable[[str], Talker] | None = None) -> None:
        self.session = session
        self._switch = switch

    def run(self, line: str) -> Outcome | None:
        """Do what ``line`` says if it is a command; None where it is a question. Raises ``InputError`` for a command
        that does not exist, and for one that cannot be done."""
        stripped = line.strip()
        if stripped in LEAVE:
            return Outcome("quit")
        if not stripped.startswith("/") or "\n" in stripped:
            return None
        word, _, rest = stripped.partition(" ")
        if "/" in word[1:]:  # the path of a file
            return None
        command = next((one for one in COMMANDS if one.word == word), None)
        if command is None:
            raise _unknown(word)
        argument = rest.strip()
        if argument and not command.takes:
            raise InputError(f"{word} takes nothing behind it", hint=f"type: {word}")
        if not argument and command.takes and not command.takes.startswith("["):
            example = {"FILE": "chat.json", "CONTEXT": self.session.contexts.names[0], "MODEL": "NAME"}[command.takes]
            raise InputError(f"{word} needs a {command.takes.lower()}", hint=f"type: {word} {example}")
        if command.takes == "FILE":
            return self._file(word, Path(_unquoted(argument)).expanduser())
        if word in _SHOWN:
            return Outcome(_SHOWN[word], self._answer(argument or "1"))
        return self._other(word, argument)

    def _other(self, word: str, argument: str) -> Outcome:
        session = self.session
        match word:
            case "/h":
                return Outcome("text", help_text())
            case "/q":
                return Outcome("quit")
            case "/m":
                return Outcome("multiline")
            case "/M":
                return Outcome("multiline-toggle")
            case "/lc":
                return Outcome("text", session.contexts.listed())
            case "/about":
                return Outcome("about")
            case "/c":
                session.switch_context(argument)
                return Outcome("text", f"A new conversation, in the context {argument}.")
            case "/a":
                if self._switch is None:
                    raise InputError("there is no other model here", hint="leave, and type: ilab model chat -m NAME")
                session.talker = self._switch(argument)
                return Outcome("text", f"You talk to {session.talker.name} now.")
            case "/N":
                session.new(wholly=True)
                return Outcome("text", "A new conversation.")
            case _:
                session.new()
                return Outcome("text", f"A new conversation{', from what was loaded' if session.loaded else ''}.")

    def _file(self, word: str, path: Path) -> Outcome:
        if word == "/s":
            self.session.save(path)
            return Outcome("text", f"Saved {len(self.session.messages)} messages in {path}.")
        self.session.load(path, for_good=word == "/L")
        count = len(self.session.messages)
        return Outcome("messages", f"Loaded {count} messages from {path}.", self.session.messages)

    def _answer(self, number: str) -> str:
        """The answer that was ``number`` answers ago; 1 is the last."""
        answers = self.session.answers
        if not answers:
            raise InputError("there is no answer yet", hint="ask something first")
        if not (number.isascii() and number.isdecimal() and 1 <= int(number) <= len(answers)):
            last = f"a number from 1, the last answer, to {len(answers)}" if len(answers) > 1 else "1, the only answer"
            raise InputError(f"there is no answer {number}", hint=f"give {last}")
        return answers[int(number) - 1]


def _unknown(word: str) -> InputError:
    close = difflib.get_close_matches(word, WORDS, n=1, cutoff=0.5)
    near = f"did you mean {close[0]}? " if close else ""
    return InputError(f"there is no command {word}", hint=f"{near}/h shows them all")


def _unquoted(text: str) -> str:
    """A file's name as it is, spaces and all; quotes around it, as a shell wants them, are taken off."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text

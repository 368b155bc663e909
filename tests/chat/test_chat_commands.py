"""What a line that begins with / does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ilab.chat.commands import COMMANDS, Commands, help_text
from ilab.chat.contexts import Contexts
from ilab.chat.session import ChatSession
from ilab.data import Message
from ilab.errors import InputError


class Parrot:
    window = max_tokens = None

    def __init__(self, name: str = "parrot") -> None:
        self.name = name

    def count(self, messages: Sequence[Message]) -> int:
        return 0

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        yield f"{self.name}: {messages[-1].content}"


@pytest.fixture
def commands() -> Commands:
    session = ChatSession(Parrot(), contexts=Contexts(own={"pirate": "Arr."}))
    for question in ("one", "two", "three"):
        list(session.ask(question))
    return Commands(session, Parrot)


def kinds(commands: Commands, *lines: str) -> list[str | None]:
    outcomes = [commands.run(line) for line in lines]
    return [outcome.kind if outcome else None for outcome in outcomes]


def test_only_a_command_alone_on_the_line_leaves(commands: Commands) -> None:
    assert kinds(commands, "/q", "quit", " exit ") == ["quit"] * 3
    questions = ("quit the job?", "exit strategies", "and/or", "", "/etc/hosts is what?", "/n\nfollowed by more")
    assert kinds(commands, *questions) == [None] * len(questions)


def test_help_has_every_command(commands: Commands) -> None:
    outcome = commands.run("/h")
    assert outcome is not None and outcome.text == help_text()
    assert all(f"{command.word} " in outcome.text and command.does in outcome.text for command in COMMANDS)
    wanted = {"/q", "/h", "/a", "/c", "/lc", "/m", "/M", "/n", "/N", "/d", "/p", "/md", "/s", "/l", "/L", "/about"}
    assert {command.word for command in COMMANDS} == wanted


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("/x", "no command /x", "/h shows them all"),
        ("/abuot", "no command /abuot", "did you mean /about?"),
        ("/s", "/s needs a file", "type: /s chat.json"),
        ("/c", "/c needs a context", "type: /c default"),
        ("/c pirat", "no context 'pirat'", "did you mean 'pirate'?"),
        ("/n now", "/n takes nothing", "type: /n"),
        ("/d 4", "no answer 4", "a number from 1, the last answer, to 3"),
        ("/d -1", "no answer -1", ""),
        ("/md x", "no answer x", ""),
        ("/d ²", "no answer ²", ""),
    ],
)
def test_mistakes_are_told_with_what_to_type(commands: Commands, line: str, message: str, hint: str) -> None:
    before = commands.session.messages
    with pytest.raises(InputError, match=message) as caught:
        commands.run(line)
    assert hint in caught.value.hint
    assert commands.session.messages == before


def test_answers_are_shown_again(commands: Commands) -> None:
    shown = [commands.run(line) for line in ("/d", "/p 2", "/md 3")]
    assert [(one.kind, one.text) for one in shown if one] == [
        ("box", "parrot: three"),
        ("plain", "parrot: two"),
        ("markdown", "parrot: one"),
    ]
    commands.run("/n")
    with pytest.raises(InputError, match="no answer yet"):
        commands.run("/d")


def test_files_may_have_spaces(commands: Commands, tmp_path: Path) -> None:
    said = commands.session.messages
    for name in ("my  chat.json", "plain.json"):
        file = tmp_path / name
        saved = commands.run(f"/s {file}")
        assert file.is_file() and saved is not None and "6 messages" in saved.text
        commands.run("/N")
        loaded = commands.run(f'/l "{file}"')
        assert loaded is not None and loaded.messages == said == commands.session.messages
    commands.run(f"/L {file}")
    list(commands.session.ask("more"))
    again = commands.run("/n")
    assert commands.session.messages == said and again is not None and "from what was loaded" in again.text
    commands.run("/N")
    assert commands.session.messages == ()


def test_contexts_models_and_lines(commands: Commands) -> None:
    commands.run("/c pirate")
    assert [message.content for message in commands.session.messages] == ["Arr."]
    listed = commands.run("/lc")
    assert listed is not None and "pirate\n  Arr." in listed.text and "default\n  (no system prompt)" in listed.text
    commands.run("/a macaw")
    assert list(commands.session.ask("hi")) == ["macaw: hi"]
    assert kinds(commands, "/m", "/M", "/about") == ["multiline", "multiline-toggle", "about"]
    with pytest.raises(InputError, match="no other model"):
        Commands(commands.session).run("/a owl")

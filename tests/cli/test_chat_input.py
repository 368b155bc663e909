"""Typed lines without a terminal: keys go in through a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from ilab.cli.chat_input import TypedLines


class Keyboard:
    """Reads lines of keys."""

    def __init__(self, lines: TypedLines, pipe: PipeInput) -> None:
        self.lines = lines
        self._pipe = pipe

    def read(self, keys: str) -> str | None:
        self._pipe.send_text(keys)
        return self.lines.read()


@contextmanager
def keyboard(history: Path, vi: bool = False) -> Iterator[Keyboard]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield Keyboard(TypedLines(history, vi, lambda: "[default]", lambda: {"/about": []}, ["/s"]), pipe)


def test_lines_their_history_and_their_end(tmp_path: Path) -> None:
    with keyboard(tmp_path / "history") as keys:
        assert [keys.read(typed) for typed in ("one\r", " two \r", "\x04")] == ["one", "two", None]
    assert "+one" in (tmp_path / "history").read_text()
    assert (tmp_path / "history").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("vi", "typed", "said"), [(True, "hello\x1b0x\r", "ello"), (False, "hello\x01x0\r", "x0hello")]
)
def test_the_line_is_edited_as_one_is_used_to(tmp_path: Path, vi: bool, typed: str, said: str) -> None:
    with keyboard(tmp_path / "history", vi) as keys:
        assert keys.read(typed) == said


def test_several_lines_once_or_always(tmp_path: Path) -> None:
    with keyboard(tmp_path / "history") as keys:
        keys.lines.once = True
        assert [keys.read("a\rb\x1b\r"), keys.read("c\r")] == ["a\nb", "c"]
        keys.lines.multiline = True
        assert [keys.read("a\rb\x1b\r"), keys.read("c\rd\x1b\r")] == ["a\nb", "c\nd"]


def test_ctrl_c_empties_a_line_and_leaves_on_an_empty_one(tmp_path: Path) -> None:
    with keyboard(tmp_path / "history") as keys:
        assert keys.read("never mind\x03yes\r") == "yes"
        with pytest.raises(KeyboardInterrupt):
            keys.read("\x03")


def test_a_history_that_cannot_be_written_is_no_reason_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with keyboard(tmp_path / "file" / "history") as keys:
        assert keys.read("one\r") == "one"
    assert "not remembered" in capsys.readouterr().err

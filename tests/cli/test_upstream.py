"""Every command and option of InstructLab does what the table says of it; the table is what the docs show."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ilab.cli.app import Options
from ilab.cli.old_options import NOTHING
from ilab.cli.upstream import Exit, Row, commands, exits, found, rows
from ilab.errors import InputError

ROWS = list(rows())
# Commands of ours that do not have all of InstructLab's options yet.


def test_nothing_of_instructlab_is_forgotten() -> None:
    missing = [f"{row.command} {row.option}" for row in ROWS if row.how == "missing"]
    assert missing == []
    gone = [name for name, ours in commands().items() if not ours]
    assert gone == []


def test_the_table_has_what_upstream_s_inventory_has(shared: Path) -> None:
    """Every option of every table in the inventory of InstructLab's real command line."""
    text = (shared / "reference/upstream-cli.md").read_text(encoding="utf-8")
    part = text[text.index("### 1.1") : text.index("### 1.9")]
    known = {(row.command, row.option) for row in ROWS}
    command, missing = "", []
    for line in part.splitlines():
        if heading := re.match(r"`ilab ([a-z]+ [a-z]+)`", line):
            command = heading[1]
        elif re.match(r"\| `-", line):
            names = re.findall(r"`(-[^`]+)`", line.split("|")[1])
            missing += [(command, name) for name in names if (command, name) not in known]
    assert command == "system info"
    assert missing == []


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAME", "secret")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    return {"FILE": "file", "DIR": "folder"}


@pytest.mark.parametrize("row", [row for row in ROWS if row.how != "missing"], ids=lambda row: f"{row.command} {row.option}")  # fmt: skip
def test_a_row_is_true(row: Row, places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The option is taken with every value that InstructLab took, with a note, or is refused with that very sentence."""
    for value in row.values or ("",):
        error, said = parsed(row, places.get(value, value), capsys)
        silent = row.values and value.lower() in NOTHING
        if row.how == "refused" and not silent:
            assert error is not None and error.hint and row.text.startswith(error.hint)
        else:
            assert error is None
        noted = re.fullmatch(r"note: (\S+) is not needed: (.*)\n", said)
        assert bool(noted) == (row.how == "no effect" and not silent), said
        assert noted is None or row.text.startswith(noted[2])


def parsed(row: Row, value: str, capsys: pytest.CaptureFixture[str]) -> tuple[InputError | None, str]:
    """What is refused, and what is said, when our command reads this option alone."""
    command = found(row.command)[1]
    assert command is not None
    words = ["--", value] if row.option.startswith("-- ") else [row.option, value] if value else [row.option]
    parent = click.Context(click.Group("ilab"), obj=Options(Path(), (), None, False, False))
    error = None
    try:
        command.make_context(row.ours, words if row.option.startswith("-") else [value], parent=parent).close()
    except click.MissingParameter:  # of another option
        pass
    except click.exceptions.Exit as end:
        assert end.exit_code == 0
    except InputError as refused:
        error = refused
    return error, capsys.readouterr().err


@pytest.mark.parametrize("one", exits(), ids=lambda one: one.typed)
def test_a_mistake_ends_as_the_table_says(one: Exit, tmp_path: Path) -> None:
    words = shlex.split(one.typed)
    assert words[0] == "ilab"
    done = subprocess.run(
        [sys.executable, "-m", "ilab", *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == one.code, done.stderr
    assert one.says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []

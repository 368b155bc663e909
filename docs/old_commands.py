"""The page of InstructLab's commands, options and settings, for docs/generate.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from ilab.cli.compat import ALIASES
from ilab.cli.upstream import Row, commands, exits, rows
from ilab.migrate_table import ROWS
from ilab.migrate_table import Row as Setting

PROBES = (1, "cpu", True, {"learning_rate": 1e-5, "lora_alpha": 32, "lora_dropout": 0.1, "random_seed": 1})
HOW = {
    "same": "as it was",
    "other name": "as it was",
    "no effect": "taken, and not needed",
    "refused": "refused",
    "missing": "not there yet",
}

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def page(table: Table) -> Iterator[str]:
    """What each became; ``table`` draws one from its heads and rows."""
    yield "# InstructLab's commands"
    yield (
        "Every command, option and setting of InstructLab, from v0.11 to v0.26.1, and what it is here. An option\n"
        "that is *taken, and not needed* says so in a note on standard error and changes nothing. One that is\n"
        "*refused* ends with exit code 2 and the sentence in the last column. A test types each of them."
    )
    yield "## Commands"
    yield table(("InstructLab", "here"), [(_typed(name), _typed(ours)) for name, ours in commands().items()])
    yield (
        "On every command `--debug-params` and `--debug-params-json` show what was understood, and where each value\n"
        "comes from, and do nothing else; a key or password is not shown. `-v` does not print that list."
    )
    yield "## Options"
    for command, group in groupby(rows(), lambda row: row.command):
        old = command in ALIASES or command == "evaluate"
        yield f"### ilab {command}".rstrip() + (" (of the first versions)" if old else "")
        yield table(("option", "", ""), list(_options(list(group))))
    yield "## Mistakes and exit codes"
    yield (
        "What is wrong in a file or on the command line ends with 2, a machine or package that cannot do it with 3, a\n"
        "server with 4 ([errors and exit codes](errors.md)); InstructLab ended most failures with 1, some with 0."
    )
    heads = ("what is wrong", "for example", "InstructLab", "here")
    yield table(heads, [(one.when, f"`{one.typed}`", one.upstream, f"exit {one.code}") for one in exits()])
    yield "## Settings"
    yield (
        "`ilab config migrate` translates a configuration file of InstructLab's, and says what has no counterpart;\n"
        "such a file is also read as it is, from its usual place or with `--config FILE`."
    )
    yield table(("setting", "here", ""), [_setting(key, row) for key, row in ROWS.items()])


def _typed(command: str) -> str:
    return f"`ilab {command}`" if command else "not there yet"


def _options(found: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """A line for all spellings of an option, or for each where they became different things."""
    for _, group in groupby(found, lambda row: (row.entry, row.how, row.text)):
        same = list(group)
        spelled = ", ".join(f"`{row.option}`" for row in same)
        yield spelled, HOW[same[0].how], same[0].text


def _setting(key: str, row: Setting) -> tuple[str, str, str]:
    return f"`{key}`", ", ".join(f"`{target}`" for target in targets(row)), row.instead


def targets(row: Setting) -> list[str]:
    """The settings of ours that one of InstructLab's becomes."""
    found: Mapping[str, Any] = {}
    for probe in (row.default, *PROBES):
        found = {**found, **(row.read(probe) if probe is not None else {})}
    return list(found)

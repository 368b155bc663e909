"""What became of every command and option of InstructLab: the table of its own names, held against our commands.

``upstream.yaml`` says what InstructLab had. What each became is not written down a second time but asked of the
commands themselves: an option that is there, under this name or another; one of :class:`OldOptions`, which takes it
with a note or refuses it with a sentence; or nothing. So the page made from this cannot differ from the code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from ilab.cli.app import NOUNS, load_noun, main
from ilab.cli.compat import ALIASES
from ilab.cli.old_options import OldOptions

TABLE = Path(__file__).with_name("upstream.yaml")
How = Literal["same", "other name", "no effect", "refused", "missing"]


@dataclass(frozen=True)
class Row:
    """One spelling of an option of ``command`` (both InstructLab's), and what it became in ``ours``.

    ``entry`` is all its spellings. ``values`` are some that InstructLab takes; none for a switch. ``text`` says what
    is different.
    """

    command: str
    entry: str
    option: str
    values: tuple[str, ...]
    ours: str
    how: How
    text: str = ""


def rows() -> Iterator[Row]:
    """Every option of every command, in the order of the table; options of flat commands under the flat name."""
    import yaml

    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    for part in ("grouped", "flat"):
        for command, options in table[part].items():
            yield from _rows(command, options)


def commands() -> Mapping[str, str]:
    """Every command of InstructLab -> what it is called here; empty where there is none."""
    import yaml

    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {name: found(name)[0] for part in ("grouped", "flat") for name in table[part] if name}


def found(command: str) -> tuple[str, click.Command | None]:
    """Our name of one of InstructLab's commands, and the command; empty and None where there is none."""
    noun, _, verb = command.partition(" ")
    if not command:
        return "", main
    if noun in ALIASES and not verb:
        noun, verb, _ = ALIASES[noun]
    if noun not in NOUNS:
        return "", None
    ours = load_noun(noun)
    if verb:
        inner = ours.commands.get(verb) if isinstance(ours, click.Group) else None
        return (f"{noun} {verb}", inner) if inner else ("", None)
    return noun, ours


@dataclass(frozen=True)
class Exit:
    """A mistake: what ``typed`` ends with here (``code``), and what InstructLab did."""

    when: str
    typed: str
    code: int
    upstream: str
    says: str


def exits() -> list[Exit]:
    """Mistakes of which InstructLab made something else, or the same."""
    import yaml

    return [Exit(**one) for one in yaml.safe_load(TABLE.read_text(encoding="utf-8"))["exits"]]


def _rows(command: str, options: Mapping[str, Any]) -> Iterator[Row]:
    name, ours = found(command)
    for spellings, facts in options.items():
        value, note = facts if isinstance(facts, list) else (facts, "")
        values = () if value == "flag" else tuple(part.strip() for part in str(value).split("|"))
        for spelling in spellings.split(", "):
            how, text = _became(ours, spelling)
            yield Row(command, spellings, spelling, values, name, how, " ".join(part for part in (text, note) if part))


def _became(command: click.Command | None, spelling: str) -> tuple[How, str]:
    if command is None:
        return "missing", ""
    parameter = _parameter(command, spelling)
    if parameter is None:
        return "missing", ""
    if isinstance(parameter, click.Argument):
        return "same", ""
    judged = getattr(parameter.callback, "__self__", None)
    if isinstance(judged, OldOptions):
        return judged.verdict(parameter.opts[0])
    shown = [name for name in parameter.opts if name.startswith("--")] or parameter.opts
    if spelling.startswith("--") and spelling not in (shown[0], *parameter.secondary_opts):
        return "other name", f"`{shown[0]}` here."
    return "same", ""


def _parameter(command: click.Command, spelling: str) -> click.Parameter | None:
    """The option of that name; for a name without dashes, and for what follows ``--``, the first argument."""
    if not spelling.startswith("-") or spelling.startswith("-- "):
        return next((one for one in command.params if isinstance(one, click.Argument)), None)
    return next((one for one in command.params if spelling in (*one.opts, *one.secondary_opts)), None)

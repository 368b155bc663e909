"""What every command gets when it is loaded: examples in its help, values that a shell can complete, `--debug-params`.

The commands themselves know nothing of it; the examples are one table (:mod:`ilab.cli.examples`), the values another
(:mod:`ilab.cli.offers`). `--debug-params` and `--debug-params-json` are InstructLab's: they show what a command
understood, and where each value comes from, instead of running it.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import click
from click.types import StringParamType

from ilab.cli.examples import EXAMPLES
from ilab.cli.offers import OFFERS, Offered

DEBUG = "ilab.debug-params"
SECRET = ("key", "token", "passwd", "password")  # names of options whose value is not shown unless it is a reference


def dress(command: click.Command, path: str) -> None:
    """Give ``command``, typed as ``ilab PATH``, and all below it what every command has. Once for each command."""
    offer_values(command, path)
    below = command.commands.items() if isinstance(command, click.Group) else ()
    for name, one in below:
        dress(one, f"{path} {name}".strip())
    if path in EXAMPLES and not command.epilog:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[path])
    if not isinstance(command, click.Group) or command.invoke_without_command:
        _show_when_asked(command)


def offer_values(command: click.Command, path: str) -> None:
    """Let a shell complete what the options and arguments of ``command`` take, as far as the table knows it."""
    for parameter in command.params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            offer = OFFERS.get((path, name)) or OFFERS.get(("*", name))
            if offer and isinstance(parameter.type, StringParamType):
                parameter.type = Offered(offer)


def _show_when_asked(command: click.Command) -> None:
    for name in ("--debug-params", "--debug-params-json"):
        command.params.append(click.Option([name], is_flag=True, hidden=True, expose_value=False, callback=_note))
    inner = command.callback

    @functools.wraps(inner or _nothing)
    def callback(*arguments: Any, **options: Any) -> Any:
        context = click.get_current_context()
        if DEBUG in context.meta and context.meta[DEBUG][0] == context.command_path:
            click.echo(_understood(context, as_json=context.meta[DEBUG][1] == "--debug-params-json"))
            context.exit(0)
        return inner(*arguments, **options) if inner else None

    command.callback = callback


def _nothing() -> None:
    return


def _note(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        context.meta[DEBUG] = (context.command_path, parameter.opts[0])


def _understood(context: click.Context, *, as_json: bool) -> str:
    """The values of the command's parameters: as lines, or in InstructLab's form ``{name: [value, type, source]}``."""
    told: dict[str, tuple[Any, str, str]] = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        told[name] = (_shown(name, value), type(value).__name__, source.name.lower() if source else "default")
    if as_json:
        return json.dumps({"params": told}, default=str, ensure_ascii=False)
    return "\n".join(f"{name}: {value!r} ({kind}, {source})" for name, (value, kind, source) in told.items())


def _shown(name: str, value: Any) -> Any:
    """``value``, unless it may be a secret."""
    secret = any(part in SECRET for part in name.split("_")) and isinstance(value, str) and value
    return "***" if secret and not str(value).startswith(("env:", "file:")) else value

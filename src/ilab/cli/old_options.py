"""Options of InstructLab's commands that have no effect here: taken with a note, or refused with what to use instead.

What only old scripts pass and what changes no result is taken; where a person would expect an effect, the option is
refused. Values that ask for nothing (``false``, ``0``, ``none``) are taken in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import click

from ilab.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
NOTHING = ("false", "0", "none", "")


@dataclass(frozen=True)
class OldOptions:
    """A command's options by name (``--x/-y`` for one with a short form): why not needed, or what to use instead."""

    taken: Mapping[str, str]
    refused: Mapping[str, str]
    flags: frozenset[str] = frozenset()

    def __call__(self, command: F) -> F:
        """Add the options to ``command``, hidden from the help."""
        for name in (*self.taken, *self.refused):
            flag: dict[str, Any] = {"is_flag": True, "default": None} if name in self.flags else {}
            command = click.option(*name.split("/"), hidden=True, expose_value=False, callback=self._judge, **flag)(
                command
            )
        return command

    def _judge(self, _: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is None or str(value).lower() in NOTHING:
            return
        name = parameter.opts[0]
        how, text = self.verdict(name)
        if how == "refused":
            raise InputError(f"{name} has no meaning here", hint=text)
        click.echo(f"note: {name} is not needed: {text}", err=True)

    def verdict(self, name: str) -> tuple[Literal["no effect", "refused"], str]:
        """What becomes of the option: refused, with what to use instead; or no effect, with why not."""
        refused = {key.split("/")[0]: text for key, text in self.refused.items()}
        if name in refused:
            return "refused", refused[name]
        return "no effect", {key.split("/")[0]: text for key, text in self.taken.items()}[name]

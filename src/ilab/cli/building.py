"""The options that say which build is meant: a pipeline, an environment, and parameters.

@group.command()
@building                         adds --pipeline, --env, --parameters and -p
def run(options, asked, …):
    loaded, values = asked.load(options), asked.values
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ilab.cli.app import Options
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Asked:
    """Which build: a pipeline, the environment whose defaults hold, files of parameters, and single ones."""

    pipeline: str | None = None
    environment: str | None = None
    files: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    def load(self, options: Options, **flags: Any) -> Loaded:
        """The configuration, with the files' parameters over those of all settings; ``flags`` as ``Options.load``."""
        from ilab.parameters.files import read_parameters

        loaded: Loaded = options.load(pipeline=self.pipeline, environment=self.environment, **flags)
        given = {name: read_parameters(options.directory / Path(name).expanduser()) for name in self.files}
        return replace(loaded, given=given)

    @property
    def values(self) -> dict[str, Any]:
        return split_parameters(self.parameters)


def building(command: F) -> F:
    """Add the options that say which build is meant; the command gets them as ``asked``."""

    @functools.wraps(command)
    def called(*arguments: Any, **given: Any) -> Any:
        asked = Asked(*(given.pop(f"asked_{name}") for name in ("pipeline", "environment", "files", "parameters")))
        return command(*arguments, asked=asked, **given)

    for option in reversed(
        (
            click.option("--pipeline", "asked_pipeline", metavar="NAME|FILE", help="Which one.  [config: pipeline]"),
            click.option(
                "--env",
                "asked_environment",
                type=click.Choice(["dev", "prod"]),
                help="Whose defaults the parameters have.  [config: environment]",
            ),
            click.option(
                "--parameters",
                "asked_files",
                multiple=True,
                metavar="FILE",
                help="Parameters in a file: .env, ConfigMap, or kustomization.",
            ),
            click.option(
                "-p", "asked_parameters", multiple=True, metavar="NAME=VALUE", help="Set a pipeline parameter."
            ),
        )
    ):
        called = option(called)
    return cast(F, called)


def split_parameters(texts: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"-p takes NAME=VALUE, not {text!r}", hint="for example -p sdg_scale_factor=8")
        values[name.strip().lower()] = value
    return values

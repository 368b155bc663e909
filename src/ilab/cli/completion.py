"""``ilab completion``: what a shell needs to complete commands, options and values at a press of TAB.

The scripts are click's; they ask ``ilab`` itself, which answers from the tables of this folder without loading
anything heavy. The values are in :mod:`ilab.cli.offers`.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from ilab.cli.app import COMPLETION, PROGRAM, hoisted, main
from ilab.cli.everywhere import offer_values

VALUED = ("--set", "--store")  # global options that may stand anywhere, with their value
PLACES = {
    "bash": "~/.local/share/bash-completion/completions/ilab",
    "zsh": "~/.zfunc/_ilab   (with `fpath+=~/.zfunc; autoload -Uz compinit; compinit` in ~/.zshrc)",
    "fish": "~/.config/fish/completions/ilab.fish",
}


class _Anywhere(ShellComplete):
    """Global options are completed wherever they are typed, as :func:`ilab.cli.app.hoisted` takes them."""

    def get_completion_args(self) -> tuple[list[str], str]:
        arguments, incomplete = super().get_completion_args()
        if arguments and arguments[-1] in VALUED:
            return arguments[-1:], incomplete
        return hoisted(arguments), incomplete


class _Bash(_Anywhere, BashComplete):
    # No space behind `name=`, for a value follows.
    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)", "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace"
    )


class _Zsh(_Anywhere, ZshComplete):
    pass


class _Fish(_Anywhere, FishComplete):
    pass


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def register() -> None:
    """Make click complete with the classes of this module, and the values of the global options."""
    offer_values(main, "")
    for name, shell in SHELLS.items():
        add_completion_class(shell, name)


@click.command(name="completion")
@click.argument("shell", type=click.Choice(list(SHELLS)), required=False, metavar="[bash|zsh|fish]")
def group(shell: str | None) -> None:
    """Print the script that lets a shell complete commands, options, models, leaves, processes and settings.

    Without a name it is that of the shell in $SHELL. Put it where the shell looks; a new shell then knows it.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise click.UsageError(f"Which shell? One of {', '.join(SHELLS)}.")
    click.echo(SHELLS[name](main, {}, PROGRAM, COMPLETION).source())
    click.echo(f"It belongs into {PLACES[name]}", err=True)

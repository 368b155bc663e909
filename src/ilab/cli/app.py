"""The command line: parse, make a Config, call the library once, render.

Commands are loaded when they are used, so ``ilab --help`` imports nothing heavy. This is the one place that catches
``IlabError``; anything else that arrives here is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ilab import __version__
from ilab.cli.compat import ALIASES
from ilab.errors import IlabError, InputError, InputErrors, SetupError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROGRAM = "ilab"
NOUNS = {
    "completion": "Let the shell complete commands, options and values",
    "config": "Settings: make, show, change, check them",
    "data": "Make synthetic data",
    "doctor": "What is missing for which command, and what to type",
    "documents": "Crawl websites, convert documents",
    "endpoint": "What a model server can do",
    "evaluate": "Check and export held-out questions; measure a model",
    "flow": "Look at, check and run flows",
    "model": "Get, train, test, measure, serve, chat with and convert models",
    "package": "What a build hands on: build, push, verify it",
    "pipeline": "Plan and run the whole build",
    "process": "What runs in the background",
    "rag": "Find passages in documents; whether to tune or to retrieve",
    "registry": "The registered models",
    "report": "What a build learned",
    "step": "Run one step of a plan",
    "system": "What this machine has",
    "taxonomy": "Write, check and compare taxonomies",
    "why": "What stands behind an answer, and why it is wrong",
}


COMPLETION = "_ILAB_COMPLETE"  # set by the scripts of `ilab completion`
NO_FILE = "DEFAULT"  # as --config: no file of the user's


class LazyGroup(click.Group):
    """A group whose sub-commands live in ``ilab.cli.<noun>`` and are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ALIASES:
            noun, verb, _ = ALIASES[cmd_name]
            group = self.get_command(ctx, noun)
            return group.get_command(ctx, verb) if isinstance(group, click.Group) else None
        return load_noun(cmd_name) if cmd_name in NOUNS else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the tables, as the help."""
        from click.shell_completion import CompletionItem

        known = NOUNS | {name: text for name, (_, _, text) in ALIASES.items()}
        fitting = [CompletionItem(name, help=text) for name, text in known.items() if name.startswith(incomplete)]
        return fitting + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that help does not import the commands it lists."""
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))
        with formatter.section("Aliases"):
            formatter.write_dl([(name, f"{noun} {verb}: {text}") for name, (noun, verb, text) in ALIASES.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A reader that has left (`ilab … | head`) is no error; click would end with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            drop_output()
            return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in NOUNS and args[0] not in ALIASES and not args[0].startswith("-"):
            from ilab.cli.examples import EXAMPLES  # has every command by its whole name

            whole = [name for name in EXAMPLES if name.partition(" ")[2] == args[0]]
            close = whole or difflib.get_close_matches(args[0], [*NOUNS, *ALIASES], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@functools.cache
def load_noun(name: str) -> click.Command:
    """The command or group ``ilab NAME``, imported, with what every command has (:mod:`ilab.cli.everywhere`)."""
    from ilab.cli.everywhere import dress

    command: click.Command = importlib.import_module(f"ilab.cli.{name}").group
    dress(command, name)
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ilab", message="%(prog)s, version %(version)s")
@click.option("-C", "--directory", type=click.Path(exists=True, file_okay=False), default=".", help="Work there.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Set a configuration value.")
@click.option("--config", metavar="FILE", help="In place of ~/.config/instructlab/config.yaml; DEFAULT: none.")
@click.option("--store", metavar="PLACE", help="Folder or s3://BUCKET/PREFIX for all artifacts.  [config: where.store]")
@click.option("--json", "as_json", is_flag=True, help="Results as JSON on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks and debug messages.")
@click.pass_context
def main(ctx: click.Context, /, directory: str, sets: tuple[str, ...], store: str | None, **flags: Any) -> None:
    """Builds a language model from a taxonomy, the way make builds a program from source."""
    ctx.obj = Options(Path(directory), sets, _place(store), **flags)


def _place(store: str | None) -> str | None:
    """A folder as an absolute path; an address as it is."""
    return str(Path(store).resolve()) if store and "://" not in store else store


class Options:
    """The global options; ``load`` gives the merged configuration."""

    def __init__(
        self,
        directory: Path,
        sets: Sequence[str],
        store: str | None,
        as_json: bool,
        verbose: bool,
        config: str | None = None,
    ) -> None:
        self.directory, self.sets, self.store, self.config = directory, sets, store, config
        self.as_json, self.verbose = as_json, verbose
        self._told: set[str] = set()

    def load(self, **flags: Any) -> Any:
        """The ``Loaded`` configuration; ``flags`` are config paths with ``.`` written as ``__``."""
        from ilab.config import load

        given = {name.replace("__", "."): value for name, value in flags.items()}
        file = self.user_file()
        if file is not None and not file.is_file():
            raise click.UsageError(f"`{self.config}` does not exist or is not a readable file")
        user: Path | Literal["own"] | None = None if self.config == NO_FILE else file or "own"
        loaded = load(self.directory, sets=self.sets, flags={"where.store": self.store, **given}, user=user)
        for note in (note for note in loaded.notes if note not in self._told):
            click.echo(f"note: {note}", err=True)
        self._told.update(loaded.notes)
        return loaded

    def load_or_defaults(self) -> tuple[Any, InputError | None]:
        """As :meth:`load`; where a file is wrong, the defaults and what is wrong."""
        from ilab.config import Config, Loaded

        try:
            return self.load(), None
        except InputError as error:
            return Loaded(Config(), self.directory.resolve(), {}), error
        except click.UsageError as error:
            return Loaded(Config(), self.directory.resolve(), {}), InputError(error.message, where="--config")

    def user_file(self) -> Path | None:
        """The file that ``--config`` names in place of the user's own."""
        return Path(self.config).expanduser() if self.config and self.config != NO_FILE else None

    def result(self, value: Any, text: str = "") -> None:
        """Print a command's result: JSON with ``--json``, else ``text``."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str))
        elif text:
            click.echo(text)


def run() -> None:
    """Entry point of the ``ilab`` executable: runs the command and turns errors into exit codes."""
    verbose = "-v" in sys.argv or "--verbose" in sys.argv
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be text; standard error does this by itself
        sys.stdout.reconfigure(errors="backslashreplace")
    if COMPLETION in os.environ:
        from ilab.cli.completion import register

        register()
    try:
        code = main.main(hoisted(sys.argv[1:]), prog_name=PROGRAM, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)  # click returns the code of its own Exit
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except IlabError as error:
        if verbose:
            import traceback

            traceback.print_exc()
        show_error(error)
        sys.exit(error.exit_code)
    except UnicodeEncodeError as error:  # bytes on the command line that are no text, where text is needed
        if verbose or not isinstance(error.object, str):
            raise
        show_error(InputError("this is no text in the terminal's encoding", where=error.object[:60]))
        sys.exit(InputError.exit_code)
    except OSError as error:  # outside of any step: a full disk, a folder that cannot be written
        from ilab.core.store import disk_error

        if verbose:
            raise
        drop_output()
        show_error(disk_error(error))
        sys.exit(SetupError.exit_code)


def hoisted(arguments: Sequence[str]) -> list[str]:
    """``arguments`` with the global options in front, so that ``ilab run --json`` is ``ilab --json run``.

    What stands behind ``--`` is left alone.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments[:end])
    for word in words:
        if word == "--json" or word.startswith(("--set=", "--store=")):
            front.append(word)
        elif word in ("--set", "--store"):
            front.append(word)
            front += [value for value in [next(words, None)] if value is not None]
        else:
            rest.append(word)
    return [*front, *rest, *arguments[end:]]


def drop_output() -> None:
    """Nobody takes standard output any more: what is still buffered goes nowhere, instead of failing at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_error(error: IlabError) -> None:
    """Each error on standard error: what, where, what to type next."""
    for one in error.errors if isinstance(error, InputErrors) else [error]:
        where = click.style(f"{one.where}: ", bold=True) if one.where else ""
        click.echo(f"{click.style('error:', fg='red', bold=True)} {where}{one.message}", err=True)
        if one.hint:
            click.echo(f"       {one.hint}", err=True)
    if isinstance(error, InputErrors):
        click.echo(error.message, err=True)

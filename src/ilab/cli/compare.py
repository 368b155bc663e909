"""``ilab model compare``: what several models answer to the same questions, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.data import TrainingRow

SIDE_BY_SIDE = 34  # columns that each answer needs at least; in a narrower terminal they stand one below the other


@click.command()
@click.argument("questions", nargs=-1, metavar="[QUESTION]...")
@click.option("--model", "models", multiple=True, metavar="[NAME=]DIR", help="A model; two or more.")
@click.option("--input", "input_", metavar="FILE", help="Questions: a line each, or JSONL or CSV with `question`.")
@click.option("--max-tokens", type=click.IntRange(1), default=200, show_default=True, help="Longest answer.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, mps.  [config: where.device]")
@click.pass_obj
def compare(
    options: Options, /, questions: Sequence[str], models: Sequence[str], input_: str | None, **given: Any
) -> None:
    """Ask several models the same QUESTIONs, and show their answers side by side.

    Without --model: the base and what the last build of this project chose. Answers are kept, so the same question
    costs nothing the second time.
    """
    from ilab.inquiry import asked, questions_in

    loaded: Loaded = options.load(where__device=given["device"])
    rows = [asked(question) for question in questions]
    rows += questions_in(options.directory / input_) if input_ else []
    if not rows:
        raise InputError(
            "there is no question to ask", hint='give one: ilab model compare "What is …?", or --input FILE'
        )
    folders = _given(models, options.directory) if models else _of_the_last_build(loaded)
    if len(folders) < 2:
        raise InputError("one model is nothing to compare", hint="give two: --model DIR --model DIR")
    said = answers(loaded, folders, rows, given["max_tokens"])
    told = [
        {
            "question": row.messages[0].content,
            "expected": row.messages[-1].content or None,
            "answers": {name: said[name][number] for name in folders},
        }
        for number, row in enumerate(rows)
    ]
    if options.as_json:
        options.result({"models": {name: str(path) for name, path in folders.items()}, "questions": told})
    else:
        _show(told)


def answers(
    loaded: Loaded, models: Mapping[str, Path], rows: Sequence[TrainingRow], max_tokens: int
) -> dict[str, list[str]]:
    """What each model answers, by name; kept in the project's memo by the contents of model and question."""
    from ilab.actions import where_of
    from ilab.cli.live import view
    from ilab.cli.threads import passive_threads
    from ilab.core.events import Bus
    from ilab.core.run import Engine
    from ilab.core.step import Site
    from ilab.core.store import Store
    from ilab.evaluation.before_after import ask

    passive_threads()
    engine = Engine(Store(loaded.store), where_of(loaded))
    try:
        with tempfile.TemporaryDirectory() as scratch, view() as shown:
            engine.bus = Bus([shown])
            site = Site(
                where=engine.where,
                work=Path(scratch),
                found={},
                emit=engine.bus.for_step("answers"),
                memo=engine.memo,
                stopping=engine.stop.is_set,
                history=list,
            )
            return {name: ask(name, folder, rows, max_tokens, site) for name, folder in models.items()}
    finally:
        engine.close()


def _given(models: Sequence[str], directory: Path) -> dict[str, Path]:
    """Each ``[NAME=]DIR``; without a name the folder's."""
    from ilab.transfer.shelf import model_at

    found: dict[str, Path] = {}
    for text in models:
        name, equals, folder = text.partition("=")
        place = folder if equals else text
        path = (model_at(place, directory) or directory / Path(place).expanduser()).resolve()
        if not path.is_dir():
            raise InputError("there is no model here", where=str(path), hint="give a folder: --model NAME=DIR")
        name = name if equals else path.name
        if name in found:
            raise InputError(f"two models are called {name!r}", hint=f"name them: --model one={found[name]} …")
        found[name] = path
    return found


def _of_the_last_build(loaded: Loaded) -> dict[str, Path]:
    """The base and what was chosen last."""
    from ilab.core.store import Store
    from ilab.inquiry import last_results
    from ilab.outcome import model_to_use

    base = last_results(Store(loaded.store)).base
    chosen, name = model_to_use(loaded, None)
    if base is None:
        raise InputError("the store no longer has the base model", hint="give both: --model DIR --model DIR")
    return {"base": base, name if name != "base" else "chosen": chosen}


def _show(told: Sequence[Mapping[str, Any]]) -> None:
    from ilab.cli.render import console

    out = console()
    for one in told:
        out.print(_plain(one["question"]), style="bold")
        shown = {**({"expected": one["expected"]} if one["expected"] else {}), **one["answers"]}
        if out.width >= SIDE_BY_SIDE * len(shown):
            out.print(_columns(shown))
        else:
            for name, text in shown.items():
                out.print(_plain(f"{name}:"), style="dim")
                out.print(_plain(text))
        out.print()


def _columns(shown: Mapping[str, str]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", expand=True, padding=(0, 3, 0, 0))
    for name in shown:
        table.add_column(_plain(name), ratio=1, overflow="fold")
    table.add_row(*(_plain(text) for text in shown.values()))
    return table


def _plain(text: str) -> Any:
    """An answer as text: its lines are kept, nothing in it is obeyed."""
    from rich.text import Text

    from ilab.cli.findings import printable

    return Text("\n".join(printable(line) for line in text.splitlines()) or "(nothing)")

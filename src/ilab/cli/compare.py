"""``ilab model compare``: what several models answer to the same questions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.evaluate_judge import asking_site, given_judge, judge_name, load_with_judge
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.core.step import Site
    from ilab.data import TrainingRow
    from ilab.evaluation.judge import Judge

CONFIGURED = ""  # --judge without a name: the project's
SIDE_BY_SIDE = 34  # columns that each answer needs at least; in a narrower terminal they stand one below the other


@click.command()
@click.argument("questions", nargs=-1, metavar="[QUESTION]...")
@click.option("--model", "models", multiple=True, metavar="[NAME=]DIR", help="A model; two or more.")
@click.option("--input", "input_", metavar="FILE", help="Questions: a line each, or JSONL or CSV with `question`.")
@click.option("--max-tokens", type=click.IntRange(1), default=200, show_default=True, help="Longest answer.")
@click.option(
    "--judge",
    is_flag=False,
    flag_value=CONFIGURED,
    metavar="[NAME]",
    help="Have a judge say which answer is better; NAME is served at where.judge, `rule` is no model.",
)
@click.option("--judge-endpoint", metavar="URL", help="The judge's server.  [config: where.judge.url]")
@click.option("--judge-api-key", metavar="REF", help="env:NAME or file:PATH.  [config: where.judge.api_key]")
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

    loaded = load_with_judge(options, given, where__device=given["device"])
    rows = [asked(question) for question in questions]
    rows += questions_in(options.directory / input_) if input_ else []
    if not rows:
        raise InputError(
            "there is no question to ask", hint='give one: ilab model compare "What is …?", or --input FILE'
        )
    folders = _given(models, options.directory) if models else _of_the_last_build(loaded)
    if len(folders) < 2:
        raise InputError("one model is nothing to compare", hint="give two: --model DIR --model DIR")
    told = _compared(loaded, folders, rows, given)
    if options.as_json:
        options.result({"models": {name: str(path) for name, path in folders.items()}, **told})
    else:
        _show(told)


def answers(
    loaded: Loaded, models: Mapping[str, Path], rows: Sequence[TrainingRow], max_tokens: int
) -> dict[str, list[str]]:
    """What each model answers, by name; kept in the project's memo by the contents of model and question."""
    from ilab.evaluation.before_after import ask

    with asking_site(loaded, "answers") as site:
        found = {name: ask(name, folder, rows, max_tokens, site) for name, folder in models.items()}
    return {name: [one.shown for one in said] for name, said in found.items()}


def _compared(
    loaded: Loaded, folders: Mapping[str, Path], rows: Sequence[TrainingRow], given: Mapping[str, Any]
) -> dict[str, Any]:
    """``questions`` with their answers, and with a judge who won each of them and in all (``judging``)."""
    from ilab.evaluation.before_after import ask
    from ilab.evaluation.preferring import duels, tally

    with asking_site(loaded, "answers") as site:
        judge = _judge(loaded, given, site)
        said = {name: ask(name, folder, rows, given["max_tokens"], site) for name, folder in folders.items()}
        found = duels(said, rows, judge) if judge else []
    questions: list[dict[str, Any]] = [
        {
            "question": row.messages[0].content,
            "expected": row.messages[-1].content or None,
            "answers": {name: said[name][number].shown for name in folders},
        }
        for number, row in enumerate(rows)
    ]
    if judge is None:
        return {"questions": questions}
    for duel in found:
        verdict = {"first": duel.first, "second": duel.second, "winner": duel.better or duel.winner, "note": duel.note}
        questions[duel.question].setdefault("verdicts", []).append(verdict)
    return {"questions": questions, "judging": {"judge": judge.name, "by_rule": judge.by_rule, "pairs": tally(found)}}


def _judge(loaded: Loaded, given: Mapping[str, Any], site: Site) -> Judge | None:
    """The judge that is asked for. Raises ``InputError`` where a question was taken for its name."""
    named = given["judge"]
    if named is None:
        if given["judge_endpoint"]:
            raise InputError("a judge's server is given, and no judge is asked for", hint="add --judge NAME")
        return None
    if len(named.split()) > 1:
        raise InputError(
            f"no judge has a name like {named!r}",
            where="--judge",
            hint="a question stands before --judge: ilab model compare QUESTION --judge",
        )
    return given_judge(judge_name(loaded, named), site)


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
    from ilab.inquiry import last_results
    from ilab.outcome import model_to_use
    from ilab.transfer.stores import open_store

    base = last_results(open_store(loaded)).base
    chosen, name = model_to_use(loaded, None)
    if base is None:
        raise InputError("the store no longer has the base model", hint="give both: --model DIR --model DIR")
    return {"base": base, name if name != "base" else "chosen": chosen}


def _show(told: Mapping[str, Any]) -> None:
    from ilab.cli.render import console

    out = console()
    for one in told["questions"]:
        out.print(_plain(one["question"]), style="bold")
        shown = {**({"expected": one["expected"]} if one["expected"] else {}), **one["answers"]}
        if out.width >= SIDE_BY_SIDE * len(shown):
            out.print(_columns(shown))
        else:
            for name, text in shown.items():
                out.print(_plain(f"{name}:"), style="dim")
                out.print(_plain(text))
        for verdict in one.get("verdicts", ()):
            out.print(_plain(_verdict(verdict, alone=len(one["answers"]) == 2)), style="dim")
        out.print()
    if "judging" in told:
        for pair in told["judging"]["pairs"]:
            out.print(_plain(_total(pair)))
        how = (
            "by rule, words and numbers shared with what was expected" if told["judging"]["by_rule"] else "both orders"
        )
        out.print(_plain(f"judge {told['judging']['judge']} ({how})"), style="dim")


def _verdict(verdict: Mapping[str, Any], *, alone: bool) -> str:
    """``better: NAME``; with several models also who was compared."""
    between = "" if alone else f" ({verdict['first']} and {verdict['second']})"
    if verdict["winner"] is None:
        return f"no verdict{between}: {verdict['note']}"
    note = f": {verdict['note']}" if verdict["note"] else ""
    return f"tie{between}{note}" if verdict["winner"] == "tie" else f"better{between}: {verdict['winner']}{note}"


def _total(pair: Mapping[str, Any]) -> str:
    wins = ", ".join(f"{name} {count}" for name, count in pair["wins"].items())
    reasons = "".join(f" ({count} × {reason})" for reason, count in pair["unread"].items())
    return f"better: {wins}; ties {pair['ties']}, no verdict {sum(pair['unread'].values())}{reasons}"


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

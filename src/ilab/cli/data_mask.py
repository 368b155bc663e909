"""``ilab data mask``: which tokens of a training file bear loss, to see, and the audit of the whole file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.models.renderer import Renderer
    from ilab.training.pieces import Cut, Piece
    from ilab.training.records import RawSample

BEARS, SHOWN = "⟦", "⟧"  # around what bears loss, where there is no colour


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--model", metavar="DIR", help="The model to train, for its tokenizer.  [default: the project's base]")
@click.option(
    "--template",
    "--chat-template",
    "template",
    metavar="NAME|FILE",
    help="A built-in chat template, or a file, instead of the model's own.  [default: train_chat_template]",
)
@click.option(
    "--train-on",
    type=click.Choice(["assistant", "last", "all"]),
    default="assistant",
    show_default=True,
    help="The answers, the last answer, or all turns but the system's.",
)
@click.option("--max-length", type=click.IntRange(2), metavar="N", help="[default: train_sequence_length]")
@click.option(
    "--over-length",
    type=click.Choice(["drop", "truncate", "split", "error"]),
    default="drop",
    show_default=True,
    help="What becomes of longer rows.",
)
@click.option("--number", type=click.IntRange(0), default=3, show_default=True, metavar="N", help="Rows to show.")
@click.pass_obj
def mask(options: Options, /, file: str, model: str | None, template: str | None, number: int, **given: Any) -> None:
    """Show which tokens of a training file bear loss, and what training would make of the whole file.

    FILE is JSONL, a JSON array or Parquet, or a folder of them: messages, {system, user, assistant}, {prompt,
    completion}, {instruction, output} or {text}. Nothing is trained. Ends with 2 where training would be refused.
    """
    from ilab.actions import parameters_of
    from ilab.training.audit import Tally
    from ilab.training.pieces import EncodeOptions
    from ilab.training.records import RecordFiles
    from ilab.training.workers import cut_in_order

    loaded = options.load()
    values = {row["name"]: row["value"] for row in parameters_of(loaded, {})}
    length = values["train_sequence_length"]
    renderer = _renderer(options, loaded, (model, template), values)
    chosen = EncodeOptions(
        max_length=given["max_length"] or length, train_on=given["train_on"], over_length=given["over_length"]
    )
    tally = Tally(chosen, renderer)
    first: list[tuple[RawSample, Cut]] = []
    workers = loaded.config.where.threads
    for sample, cut in cut_in_order(RecordFiles.find(options.directory / file), renderer, chosen, workers):
        tally.add(sample, cut)
        if len(first) < number:
            first.append((sample, cut))
    audit = tally.audit()
    if options.as_json:
        rows = [_facts(sample, cut, renderer) for sample, cut in first]
        options.result({"rows": rows, "audit": audit.model_dump(mode="json")})
    else:
        _show(first, renderer, audit.summary())
    audit.check()


def _renderer(
    options: Options, loaded: Loaded, given: tuple[str | None, str | None], values: Mapping[str, Any]
) -> Renderer:
    """By the tokenizer and the chat template that the options name, else by those of the project's base."""
    from ilab.cli.train_options import template_choice
    from ilab.models.renderer import Renderer
    from ilab.models.templates import named_template
    from ilab.models.templates.adopt import plan_adoption
    from ilab.training.base import NONE, TINY, tokenizer_of

    model, template = given
    if model is None:
        model = values["sdg_base_model"] or TINY
        folder = loaded.base
        chosen = values["train_chat_template"] if template is None else template_choice(options.directory, template)
    else:
        folder = options.directory
        chosen = template or ""
    with tokenizer_of(model if model == TINY else str(folder / Path(model).expanduser())) as place:
        if chosen in ("", NONE):
            return Renderer.load(place)
        return plan_adoption(place, named_template(chosen, folder)).renderer


# -- for people ------------------------------------------------------------------------------------------------------


def _show(first: list[tuple[RawSample, Cut]], renderer: Renderer, summary: str) -> None:
    from ilab.cli.findings import printable

    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for sample, cut in first:
        click.echo(printable(f"── {sample.id}  {sample.where}"))
        for piece in cut.pieces:
            if piece.id != sample.id:
                click.echo(printable(f"─ {piece.id}"))
            click.echo(_coloured(piece, renderer) if coloured else _marked(piece, renderer))
        for one in cut.left_out:
            click.echo(printable(f"left out: {one.reason}"))
    if first:
        told = "green bears loss, inverse is a special token" if coloured else f"{BEARS}bears loss{SHOWN}"
        click.echo(f"── {told}")
    click.echo("\n".join(printable(line) for line in summary.splitlines()))


def _runs(piece: Piece, renderer: Renderer) -> Iterator[tuple[bool, bool, str]]:
    """(bears loss, is a special token, text) of consecutive tokens that are alike; control characters are written out.

    Runs are decoded whole, since one character may be several tokens.
    """
    from ilab.cli.findings import printable

    bears = [False, *piece.encoded.trained[1:]]  # the first token is never predicted, whatever the mask says
    pairs = zip(bears, piece.encoded.ids, strict=True)
    tokens = [(trained, number in renderer.special_tokens, number) for trained, number in pairs]
    for (trained, special), run in groupby(tokens, key=lambda token: token[:2]):
        text = renderer.decode([number for _, _, number in run], keep_special=True)
        yield trained, special, "\n".join(printable(line) for line in text.split("\n"))


def _coloured(piece: Piece, renderer: Renderer) -> str:
    return "".join(
        click.style(text, fg="green" if trained else None, dim=not trained, reverse=special)
        for trained, special, text in _runs(piece, renderer)
    )


def _marked(piece: Piece, renderer: Renderer) -> str:
    parts = []
    for trained, run in groupby(_runs(piece, renderer), key=lambda one: one[0]):
        text = "".join(text for _, _, text in run)
        parts.append(f"{BEARS}{text}{SHOWN}" if trained else text)
    return "".join(parts)


# -- for programs ----------------------------------------------------------------------------------------------------


def _facts(sample: RawSample, cut: Cut, renderer: Renderer) -> dict[str, Any]:
    return {
        "id": sample.id,
        "where": sample.where,
        "pieces": [{"id": piece.id, "tokens": list(_tokens(piece, renderer))} for piece in cut.pieces],
        "left_out": [one.model_dump(mode="json") for one in cut.left_out],
    }


def _tokens(piece: Piece, renderer: Renderer) -> Iterator[dict[str, Any]]:
    one = piece.encoded
    for number, trained, turn in zip(one.ids, [False, *one.trained[1:]], one.turns, strict=True):
        yield {
            "id": number,
            "text": renderer.decode([number], keep_special=True),
            "trained": trained,
            "special": number in renderer.special_tokens,
            "role": piece.roles[turn],
        }

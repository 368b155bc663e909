"""``ilab data mask``: what is shown for people and for programs, and when it ends with 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import main
from ilab.cli.data_mask import _coloured
from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.training.pieces import EncodeOptions, cut_sample
from ilab.training.records import RawSample

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Größe \x1b[31m <|end|>?"},
    {"role": "assistant", "content": "14\nlocks 🙂"},
]
ROWS = [
    {"id": "a", "messages": TURNS},
    {"id": "b", "messages": TURNS, "unmask": True},
    {"id": "c", "messages": TURNS[:2]},
]


def mask(folder: Path, model: Path, rows: list[Any], *arguments: str) -> Result:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(
        main, ["-C", str(folder), *arguments, "data", "mask", "rows.jsonl", "--model", str(model)]
    )


def test_brackets_stand_around_what_bears_loss(tmp_path: Path, tiny_model: Path) -> None:
    done = mask(tmp_path, tiny_model, ROWS)
    assert done.exit_code == 0, done.output
    shown = done.output.split("── ")
    assert shown[1] == (
        f"a  {tmp_path / 'rows.jsonl'}:1\n<|system|>\nBe brief.\n<|user|>\nGröße \\x1b[31m <|end|>?\n<|assistant|>\n"
        "⟦14\nlocks 🙂<|end|>⟧\n\n"
    )
    assert "<|user|>\n⟦Größe \\x1b[31m <|end|>?⟧\n<|assistant|>\n⟦14\nlocks 🙂<|end|>⟧" in shown[2]
    assert shown[3].endswith("left out: no token that bears loss\n")
    assert "3 rows: 2 trained on, 1 left out" in shown[4]
    assert "left out, no token that bears loss: 1 (c in row 3)" in shown[4]


def test_colours_carry_no_other_text(tmp_path: Path, tiny_model: Path) -> None:
    renderer = Renderer.load(tiny_model)
    cut = cut_sample(RawSample("a", tuple(TURNS)), 1, renderer, EncodeOptions(max_length=200))
    text = _coloured(cut.pieces[0], renderer)
    assert click.unstyle(text) == renderer.text(TURNS, False).replace("\x1b", "\\x1b")
    # The end of the answer is green and inverse, the one that the user wrote neither.
    green, inverse = "\x1b[32m", "\x1b[7m"
    before, _, answer = text.partition("14\nlocks")
    assert before.endswith(click.style("", fg="green", dim=False, reverse=False, reset=False))
    stop = answer.partition("<|end|>")[0]
    assert stop.endswith(inverse) and green in stop
    users = before.partition(" <|end|>?")[0].rpartition("\x1b[")[2]
    assert not users.startswith("7m")


def test_tokens_for_programs(tmp_path: Path, tiny_model: Path) -> None:
    done = mask(tmp_path, tiny_model, ROWS, "--json")
    told = json.loads(done.output)
    tokens = told["rows"][0]["pieces"][0]["tokens"]
    renderer = Renderer.load(tiny_model)
    assert [token["id"] for token in tokens] == renderer.encode(TURNS, "assistant").ids
    answer = [token for token in tokens if token["trained"]]
    assert {token["role"] for token in answer} == {"assistant"}
    assert (answer[-1]["text"], answer[-1]["special"]) == ("<|end|>", True)
    assert [token["special"] for token in tokens].count(True) == 4, "what the user wrote is no special token"
    assert told["rows"][2] == {
        "id": "c",
        "where": f"{tmp_path / 'rows.jsonl'}:3",
        "pieces": [],
        "left_out": told["audit"]["left_out"],
    }
    assert (told["audit"]["rows"], told["audit"]["pieces"], told["audit"]["stopped"]) == (3, 2, 2)


def test_what_training_would_refuse_ends_with_an_error(tmp_path: Path, tiny_model: Path) -> None:
    done = mask(tmp_path, tiny_model, ROWS[2:])
    assert isinstance(done.exception, InputError) and "nothing to train on" in done.exception.message
    assert "1 row: 0 trained on, 1 left out" in done.output, "shown all the same"
    done = mask(tmp_path, tiny_model, [{"text": "T"}, *ROWS])
    assert isinstance(done.exception, InputError) and done.exception.where.endswith("rows.jsonl:2")


@pytest.mark.parametrize(("given", "bearing"), [("last", 1), ("assistant", 2), ("all", 4)])
def test_options_reach_the_mask(tmp_path: Path, tiny_model: Path, given: str, bearing: int) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"messages": [*TURNS[1:], *TURNS[1:]]}]))
    arguments = ["data", "mask", "rows.json", "--model", str(tiny_model), "--train-on", given]
    done = CliRunner().invoke(main, ["-C", str(tmp_path), *arguments])
    assert done.output.split("── ⟦")[0].count("⟦") == bearing
    short = CliRunner().invoke(main, ["-C", str(tmp_path), *arguments, "--max-length", "9", "--over-length", "error"])
    assert isinstance(short.exception, InputError) and "over train_sequence_length 9" in short.exception.message

"""The shipped flow ``eval``, and items from its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ilab.config import Endpoint
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import Chunk, Leaf
from ilab.errors import InputError
from ilab.models.openai import OpenAIModel
from ilab.sdg.block import Row, Trace
from ilab.sdg.engine import Result
from ilab.sdg.eval_items import WRONG, items_of
from ilab.sdg.flow import find_file, load_file, load_flow
from ilab.sdg.generate import expected, starts_of
from ilab.sdg.inputs import input_rows
from ilab.sdg.rows import RowJob, run_rows
from ilab.sdg.stage import find_flow
from ilab.testing.lab_teacher import answer_lab_prompts
from ilab.testing.teacher import Script, serve

LEAF = "knowledge/towers"
TEXTS = [
    "The keepers of Dunmarrow light the lamp at dusk each day. The oil comes from the island of Vellsay in barrels. "
    "A boat brings bread and letters on Tuesday morning. The tower is thirty metres tall and painted white.",
    "The kiln of Tavrin burns beech wood from the northern forest. The potters open its door after nine whole days. "
    "The glaze contains ash of birch and grey sand. The master of the kiln is called Olwen Hart.",
    "A bell calls the pilots when the fog is thick. The reef lies two miles west of the harbour wall. "
    "The lifeboat was built of larch by Casper Lind. The crew of the lifeboat has seven members.",
]
SCALE = 6


@pytest.fixture
def towers(make_leaf: Callable[..., Leaf]) -> Leaf:
    return make_leaf(LEAF)


@pytest.fixture
def chunks(make_chunk: Callable[..., Chunk]) -> list[Chunk]:
    return [make_chunk(LEAF, text) for text in TEXTS]


@pytest.fixture
def run(
    towers: Leaf, chunks: list[Chunk], memos_in: Callable[[Path], Callable[[str], Memo]], tmp_path: Path
) -> Callable[..., tuple[Result, int]]:
    """The flow's result, and the number of calls that the server had."""
    runs = iter(range(100))

    def go(script: Script = answer_lab_prompts, in_flight: int = 16) -> tuple[Result, int]:
        with serve(script=script) as teacher:
            job = RowJob(
                flow=load_file(find_file("eval", "knowledge")),
                rows=input_rows("chunk", towers, chunks),
                scale_factor=SCALE,
                seed=42,
                quality=0.7,
                memo=memos_in(tmp_path / f"memo-{next(runs)}"),
                emit=Bus().for_step("items"),
                stopping=lambda: False,
                teacher=OpenAIModel(Endpoint(url=teacher.url, in_flight=in_flight, timeout=20.0), backoff=0.02),
                teacher_name="teacher",
                in_flight=in_flight,
            )
            return run_rows(job)[0], len(teacher.calls)

    return go


def row(name: str = "a", **columns: str) -> Row:
    """A good row, but for ``columns``."""
    good = {"question": "Who is the master of the kiln?", "answer": "Olwen Hart"}
    wrong = dict(zip(WRONG, ("Casper Lind", "Edda Falk", "Jorun Maddock"), strict=True))
    return Row(f"{LEAF}#{name}", LEAF, {**good, **wrong, **columns}, Trace(chunk=name))


def test_the_flow_gives_items_and_says_what_it_refused(
    run: Callable[..., tuple[Result, int]], towers: Leaf, chunks: list[Chunk]
) -> None:
    result, calls = run()
    most = expected(starts_of([towers], chunks, load_flow("eval")), SCALE)["calls"]
    assert SCALE * len(chunks) < calls <= most == 3 * SCALE * len(chunks)
    refused = {entry.block: entry for entry in result.rejected}
    assert {"clear", "solved"} <= set(refused)
    assert "not clear without the document" in refused["clear"].reason
    solved = [entry for entry in result.rejected if entry.block == "solved"]
    assert {entry.row["choice"] for entry in solved} == {"NONE", "SEVERAL"}  # no option right, two options right
    items, dropped = items_of(result.rows, towers, seed=7)
    assert len(items) + len(dropped) == len(result.rows) and len(items) > 5
    texts = {f"{LEAF}#{chunk.id}": chunk.text for chunk in chunks}
    for item in items:
        assert item.kind == "mcq" and item.origin == "eval" and len(set(item.options)) == 4
        assert [option for option in item.options if option in texts[item.cluster]] == [item.gold]
    assert len({item.options.index(item.gold) for item in items}) > 1
    assert {item.cluster for item in items} == set(texts)


def test_the_right_option_stands_at_every_place_before_the_solver(run: Callable[..., tuple[Result, int]]) -> None:
    result, _ = run()
    places = [row.columns["gold"] for row in result.rows]
    places += [entry.row["gold"] for entry in result.rejected if entry.block == "solved"]
    assert set(places) == set("ABCD")
    for made in result.rows:
        shown = {letter: made.columns[f"option_{letter.lower()}"] for letter in "ABCD"}
        assert shown[made.columns["gold"]] == made.columns["answer"]
        assert sorted(shown.values()) == sorted([made.columns["answer"], *(made.columns[name] for name in WRONG)])


@pytest.mark.parametrize(
    "wording", ["{}", "**{}**", "({})", "{}. as the text says", "Option {}", "{})\n", "{}: none of the others"]
)
def test_the_solvers_letter_is_found_in_what_models_write(run: Callable[..., tuple[Result, int]], wording: str) -> None:
    def script(body: dict[str, Any]) -> str:
        answer = answer_lab_prompts(body)
        start, tag, choice = answer.partition("[CHOICE]\n")
        letter = choice.split("\n")[0]
        return f"{start}{tag}{wording.format(letter)}\n[/CHOICE]" if tag else answer

    assert [row.id for row in run(script)[0].rows] == [row.id for row in run()[0].rows]


def test_the_number_of_requests_in_flight_changes_nothing(run: Callable[..., tuple[Result, int]], towers: Leaf) -> None:
    one, many = run(in_flight=1)[0], run(in_flight=32)[0]
    assert one.rows == many.rows and one.rejected == many.rejected
    assert items_of(one.rows, towers, 7) == items_of(many.rows, towers, 7)


def test_an_item_of_a_good_row(towers: Leaf) -> None:
    [item], refused = items_of([row()], towers, 7)
    assert refused == ()
    assert (item.gold, item.cluster, item.leaf) == ("Olwen Hart", f"{LEAF}#a", LEAF)
    assert sorted(item.options) == ["Casper Lind", "Edda Falk", "Jorun Maddock", "Olwen Hart"]
    swapped = row(wrong_1="Jorun Maddock", wrong_3="Casper Lind")
    assert items_of([swapped], towers, 7)[0] == (item,)  # the order of the wrong ones is nothing to it
    orders = {items_of([row()], towers, seed)[0][0].options for seed in range(40)}
    assert len({order.index("Olwen Hart") for order in orders}) == 4
    assert {items_of([row()], towers, seed)[0][0].id for seed in range(5)} == {item.id}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"wrong_2": "casper  lind."}, "options are the same"),
        ({"wrong_1": "OLWEN HART"}, "options are the same"),
        ({"wrong_1": "Olwen Hart of Tavrin"}, "an option is part of another: 'olwen hart' of 'olwen hart of tavrin'"),
        ({"wrong_1": "Hart"}, "an option is part of another: 'hart' of 'olwen hart'"),
        ({"wrong_3": "  "}, "incomplete"),
        ({"question": "?!"}, "incomplete"),
        ({"question": "Is Olwen Hart the master of the kiln?"}, "gives the answer away"),
        ({"question": "What has a lamp?!"}, "nearly a seed example's question"),
    ],
)
def test_rows_that_make_no_item(towers: Leaf, columns: dict[str, str], reason: str) -> None:
    items, [refused] = items_of([row(**columns)], towers, 7)
    assert items == ()
    assert refused.block == "items" and reason in refused.reason
    assert refused.row["question"] == columns.get("question", "Who is the master of the kiln?")


def test_words_within_words_are_no_parts(towers: Leaf) -> None:
    assert items_of([row(answer="art", wrong_1="heart")], towers, 7)[1] == ()


def test_of_equal_questions_the_first_by_id_counts(towers: Leaf) -> None:
    rows = [row("b", question="who is the master of the KILN"), row("a"), row("c", wrong_1="Hart")]
    for order in (rows, rows[::-1]):
        [item], refused = items_of(order, towers, 7)
        assert item.cluster == f"{LEAF}#a"
        assert sorted(entry.id for entry in refused) == [f"{LEAF}#b", f"{LEAF}#c"]
    broken_first = [row("a", wrong_1="Hart"), row("b")]
    assert items_of(broken_first, towers, 7)[0][0].cluster == f"{LEAF}#b"  # a broken row keeps no other out


def test_rows_of_other_leaves_are_passed_over(towers: Leaf) -> None:
    assert items_of([replace(row(), leaf="knowledge/other")], towers, 7) == ((), ())


def test_training_shares_no_prompt_with_evaluation() -> None:
    mine = {block.prompt for branch in load_flow("eval").flows["knowledge"].branches for block in _asking(branch)}
    assert mine
    for name in ("simple", "full", "llama"):
        for flow in load_flow(name).flows.values():
            for branch in flow.branches:
                assert not mine & {block.prompt for block in _asking(branch)}


def _asking(branch: Any) -> list[Any]:
    return [block for block in branch.blocks if block.calls_teacher]


def test_the_flow_is_no_source_of_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="makes held-out questions"):
        find_flow("eval", tmp_path)

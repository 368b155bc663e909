"""Blocks that only move columns about: what they do to a row, and that they declare exactly that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ilab.core.memo import Memo
from ilab.errors import InputError
from ilab.plugins import load
from ilab.sdg.block import Block, Context, Reject, Row

ROW = {"document": "Text.", "summary": "Short.", "kind": "b", "score": 2}


@pytest.fixture
def context(memos: Callable[[str], Memo]) -> Context:
    return Context(rows=memos("rows"), seed=42, scale=2)


def make(type_: str, **fields: Any) -> Block:
    block: Block = load("ilab.blocks", type_).model_validate({"name": type_, **fields})
    return block


CASES: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ("combine", {"columns": ["summary", "score"], "output": "both"}, [{**ROW, "both": "Short.\n\n2"}]),
    ("combine", {"columns": ["kind"], "output": "kind", "separator": "-"}, [ROW]),
    ("duplicate", {"columns": {"document": "base"}}, [{**ROW, "base": "Text."}]),
    ("drop", {"columns": ["score", "nowhere"]}, [{"document": "Text.", "summary": "Short.", "kind": "b"}]),
    (
        "rename",
        {"columns": {"document": "raw", "summary": "document"}},
        [{"raw": "Text.", "document": "Short.", "kind": "b", "score": 2}],
    ),
    (
        "flatten",
        {"columns": ["summary", "document"], "value": "document", "variable": "of"},
        [
            {"kind": "b", "score": 2, "document": "Short.", "of": "summary"},
            {"kind": "b", "score": 2, "document": "Text.", "of": "document"},
        ],
    ),
    (
        "select",
        {"column": "kind", "choices": {"a": "document", "b": "summary"}, "output": "best"},
        [{**ROW, "best": "Short."}],
    ),
    ("expression", {"columns": {"n": "{{ score + 1 }}", "score": "{{ kind }}"}}, [{**ROW, "n": "3", "score": "b"}]),
    (
        "populate",
        {"column": "kind", "values": {"a": "tone: dry\nextra: 1", "b": "tone: warm\nscore: 9"}},
        [{**ROW, "tone": "warm", "score": 9}],
    ),
]


@pytest.mark.parametrize(("type_", "fields", "expected"), CASES, ids=[f"{t}-{n}" for n, (t, _, _) in enumerate(CASES)])
def test_columns(context: Context, type_: str, fields: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    block = make(type_, **fields)
    rows = asyncio.run(block(Row("k#1", "k", ROW), context))
    assert [row.columns for row in rows] == expected
    assert len({row.id for row in rows}) == len(rows)
    assert dict(ROW) == {"document": "Text.", "summary": "Short.", "kind": "b", "score": 2}  # never changed in place


@pytest.mark.parametrize(("type_", "fields", "expected"), CASES, ids=[f"{t}-{n}" for n, (t, _, _) in enumerate(CASES)])
def test_declarations_are_exact(
    context: Context, type_: str, fields: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    """A row with only the needed columns is enough; it then has what is added and lacks what is dropped."""
    block = make(type_, **fields)
    columns = {name: value for name, value in ROW.items() if name in block.needs()}
    for row in asyncio.run(block(Row("k#1", "k", columns), context)):
        assert block.adds() <= set(row.columns)
        assert not set(row.columns) & (block.drops() - block.adds())
    for name in block.needs() if type_ != "select" else ():  # which looks at one of its columns only
        with pytest.raises((KeyError, Reject)):
            asyncio.run(block(Row("k#1", "k", {k: v for k, v in ROW.items() if k != name}), context))


@pytest.mark.parametrize(
    ("type_", "fields", "said"),
    [
        ("rename", {"columns": {"a": "c", "b": "c"}}, "the same name"),
        ("choose", {"output": "o", "values": []}, "nothing to choose from"),
        ("choose", {"output": "o", "values": ["a"], "column": "kind"}, "with column a mapping"),
        ("populate", {"column": "kind", "values": {"a": "- list"}}, "no mapping of columns"),
        ("populate", {"column": "kind", "values": {"a": "{"}}, "not YAML"),
        ("combine", {"columns": [], "output": "o"}, "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_when_loaded(type_: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make(type_, **fields)


@pytest.mark.parametrize(
    ("type_", "fields", "said"),
    [
        ("select", {"column": "kind", "choices": {"a": "document"}, "output": "o"}, "no such choice: kind = 'b'"),
        ("populate", {"column": "kind", "values": {"a": "x: 1"}}, "no columns for this row"),
        ("choose", {"output": "o", "column": "kind", "values": {"a": ["x"]}}, "nothing to choose from"),
        ("expression", {"columns": {"o": "{{ score / 0 }}"}}, "cannot be filled in: the template fails"),
        ("expression", {"columns": {"o": "{{ kind.__class__ }}"}}, "may not do this"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_a_reason(
    context: Context, type_: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(Reject) as caught:
        asyncio.run(make(type_, **fields)(Row("k#1", "k", ROW), context))
    assert said in caught.value.reason


def test_a_template_that_cannot_be_read_is_found_when_loaded() -> None:
    with pytest.raises(InputError, match="template cannot be read"):
        make("expression", columns={"o": "{% if %}"}).needs()


def test_choices_follow_from_ids_and_seed_alone(context: Context, memos: Callable[[str], Memo]) -> None:
    block = make("choose", output="tone", values=["dry", "warm", "stern"])
    ids = [f"k#{n}" for n in range(300)]

    def drawn(seed: int, order: list[str]) -> dict[str, str]:
        run = Context(memos("rows"), seed, 2)
        return {i: asyncio.run(block(Row(i, "k", {}), run))[0].columns["tone"] for i in order}

    one = drawn(42, ids)
    assert one == drawn(42, ids[::-1])
    assert one != drawn(43, ids)
    counts = [list(one.values()).count(tone) for tone in ("dry", "warm", "stern")]
    assert min(counts) > 70  # 100 expected, standard deviation 8


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(), min_size=1), st.permutations(list("abcdef")))
def test_renaming_back_restores_any_row(columns: dict[str, int], names: list[str]) -> None:
    to = dict(zip("abcdef", names, strict=True))
    there = make("rename", columns={name: to[name] for name in columns})
    back = make("rename", columns={to[name]: name for name in columns})
    row = Row("k#1", "k", columns)
    context = Context(rows=None, seed=1, scale=1)  # type: ignore[arg-type]
    for block in (there, back):
        [row] = asyncio.run(block(row, context))
    assert row.columns == columns


def test_samples_are_drawn_by_id_and_by_weight(memos: Callable[[str], Memo]) -> None:
    context = Context(memos("rows"), 42, 1)
    block = make("sample", column="items", output="some", count=2)
    columns = {"items": list("abcde")}
    drawn = [asyncio.run(block(Row(f"k#{n}", "k", columns), context))[0].columns["some"] for n in range(200)]
    assert drawn == [asyncio.run(block(Row(f"k#{n}", "k", columns), context))[0].columns["some"] for n in range(200)]
    assert all(len(set(some)) == 2 for some in drawn)
    assert {value for some in drawn for value in some} == set("abcde")
    one = make("sample", column="items", output="some", count=1)
    weights = {"items": {"often": 3, "seldom": 1, "never": 0}}
    found = [asyncio.run(one(Row(f"k#{n}", "k", weights), context))[0].columns["some"][0] for n in range(400)]
    assert 265 <= found.count("often") <= 335  # 300 expected, standard deviation 9
    assert "never" not in found
    with pytest.raises(Reject, match="nothing to draw from"):
        asyncio.run(one(Row("k#1", "k", {"items": "text"}), context))


def test_conversations_are_filled_in(memos: Callable[[str], Memo]) -> None:
    context = Context(memos("rows"), 42, 1)
    turns = [{"role": "system", "content": "{{ tone }}"}, {"role": "user", "content": "Say {{ x }}"}]
    block = make("conversation", turns=turns, names={"x": "document"})
    assert block.needs() == {"tone", "document"}
    [row] = asyncio.run(block(Row("k#1", "k", {"tone": "", "document": "it"}), context))
    assert row.columns["messages"] == [{"role": "user", "content": "Say it"}]  # an empty turn is left out
    with pytest.raises(Reject, match="not a conversation"):
        asyncio.run(make("conversation", turns=turns[:1])(Row("k#1", "k", {"tone": "dry"}), context))


def test_text_of_a_column_is_read_into_rows(memos: Callable[[str], Memo]) -> None:
    context = Context(memos("rows"), 42, 1)
    block = make("parse", column="text", tags={"fact": "FACT"})
    rows = asyncio.run(block(Row("k#1", "k", {"text": "[FACT]one[/FACT] [FACT]two[/FACT]"}), context))
    assert [(row.id, row.columns["fact"]) for row in rows] == [("k#1/parse-1", "one"), ("k#1/parse-2", "two")]
    with pytest.raises(Reject, match="cannot be read"):
        asyncio.run(block(Row("k#1", "k", {"text": "none"}), context))

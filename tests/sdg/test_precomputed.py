"""Datasets made before: what is read, what is refused and where, and which rows are drawn."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.errors import InputError
from ilab.sdg.precomputed import count_of, survey


def conversation(number: int, **more: Any) -> dict[str, Any]:
    turns = [{"content": f"question {number}", "role": "user"}, {"content": f"answer {number}", "role": "assistant"}]
    return {"messages": turns, "metadata": "{}", "id": f"row-{number}", "unmask": False, **more}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_both_forms_are_read(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    system = {"role": "system", "content": "Be brief."}
    found = survey(
        write(
            tmp_path / "d.jsonl",
            [
                conversation(1, unmask=True),
                {"prompt": "two", "completion": "2"},
                "",
                {"prompt": [system, *talk, {"role": "user", "content": "c"}], "completion": talk[1:]},
                {"messages": [system, *talk], "id": 7, "extra": [1]},
            ],
        )
    )
    rows = list(found.rows(4, 1))
    assert [row.train_on for row in rows] == ["all", "assistant", "assistant", "assistant"]
    assert [[message.content for message in row.messages] for row in rows] == [
        ["question 1", "answer 1"],
        ["two", "2"],
        ["Be brief.", "a", "b", "c", "b"],
        ["Be brief.", "a", "b"],
    ]
    assert rows[0].id == f"{found.name}#row-1" == rows[0].sample
    assert rows[3].id.endswith("#7")
    assert {row.source for row in rows} == {"precomputed"}
    assert {row.leaf for row in rows} == {found.name}
    under = list(found.rows(4, 1, "You are new."))
    assert [[m.role for m in row.messages].count("system") for row in under] == [1] * 4
    assert {row.messages[0].content for row in under} == {"You are new."}


def test_a_name_is_no_identity_and_a_byte_is(tmp_path: Path) -> None:
    first = survey(write(tmp_path / "a.jsonl", [conversation(1)]))
    again = survey(write(tmp_path / "b.jsonl", [conversation(1)]))
    other = survey(write(tmp_path / "c.jsonl", [conversation(1, unmask=True)]))
    assert list(first.rows(1, 1)) == list(again.rows(1, 1))
    assert first.digest == again.digest != other.digest


def test_equal_ids_and_equal_rows_stay_apart(tmp_path: Path) -> None:
    plain = {"prompt": "p", "completion": "c"}
    found = survey(write(tmp_path / "d.jsonl", [conversation(1), conversation(2, id="row-1"), plain, plain]))
    rows = list(found.rows(8, 1))
    assert len({row.id for row in rows}) == 8
    assert found.ids[:2] == ("row-1", "row-1.2")


def test_rows_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    empty = {"prompt": "p", "completion": "  "}
    found = survey(write(tmp_path / "d.jsonl", [conversation(1), empty, "", conversation(2)]))
    assert (found.ids, found.empty) == (("row-1", "row-2"), 1)
    assert [row.messages[0].content for row in found.rows(2, 1)] == ["question 1", "question 2"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "not a line of JSON"),
        ("[" * 100_000, "not a line of JSON"),
        ([1], "a row is a JSON object"),
        ({"text": "t"}, "neither messages nor prompt"),
        ({"messages": []}, "at least one message"),
        ({"messages": "no"}, "at least one message"),
        ({"prompt": 1, "completion": "c"}, "texts, or lists of messages"),
        ({"messages": [{"role": "user"}]}, "a role and a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "a role and a text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "no role 'tool'"),
        ({"messages": [{"role": ["x"], "content": "x"}]}, "no role"),
        ({"messages": [{"role": "pretraining", "content": "<|user|>x"}]}, "before instructlab-sdg 0.8"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [1]}]}, "'tool_calls'"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages are by user"),
        ({"messages": [{"role": "assistant", "content": "x"}] * 2}, "messages are by assistant, assistant"),
        (conversation(1, unmask="yes"), "unmask is true or false"),
        (conversation(1, id=[1]), "an id is a text"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path: Path, row: Any, told: str) -> None:
    path = write(tmp_path / "d.jsonl", [conversation(1), "", row])
    with pytest.raises(InputError, match=told) as caught:
        survey(path)
    assert caught.value.where == f"{path}:3"


def test_bytes_that_are_no_text_and_files_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"prompt": "\xff", "completion": "c"}\n')
    with pytest.raises(InputError, match="not a line of JSON") as caught:
        survey(path)
    assert caught.value.where == f"{path}:1"
    path.write_bytes(b"\n")
    with pytest.raises(InputError, match="no row"):
        survey(path)
    with pytest.raises(InputError, match="cannot be read"):
        survey(tmp_path)


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 5))
def test_no_row_comes_twice_while_another_has_not_come_once(found: int, wanted: int, seed: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        data = survey(write(Path(folder) / "d.jsonl", [conversation(n) for n in range(found)]))
        rows = list(data.rows(wanted, seed))
    times = Counter(row.sample for row in rows)
    seen = [times[f"{data.name}#row-{n}"] for n in range(found)]
    assert len(rows) == wanted == len({row.id for row in rows})
    assert max(seen) - min(seen) <= 1


def test_the_draw_derives_from_ids_and_the_seed(tmp_path: Path) -> None:
    some = [conversation(n) for n in range(40)]
    data = survey(write(tmp_path / "a.jsonl", some))
    turned = survey(write(tmp_path / "b.jsonl", some[::-1]))
    drawn = {row.messages for row in data.rows(10, 1)}
    assert {row.messages for row in turned.rows(10, 1)} == drawn
    assert {row.messages for row in data.rows(10, 2)} != drawn
    assert drawn < {row.messages for row in data.rows(11, 1)}


def test_a_count_and_a_share() -> None:
    assert [count_of(size, 40) for size in (1.0, 0.25, 2.5, 0.0, 1, 100)] == [40, 10, 100, 0, 1, 100]


def test_a_large_file_is_never_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    text = "word " * 2_000
    with path.open("w", encoding="utf-8") as file:
        for number in range(1_500):
            file.write(json.dumps({"prompt": f"{number} {text}", "completion": text}) + "\n")
    assert path.stat().st_size > 25_000_000
    tracemalloc.start()
    data = survey(path)
    count = sum(1 for _ in data.rows(1_000, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1_000
    assert peak < 3_000_000

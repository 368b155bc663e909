"""Every shape that training data comes in, and what is refused with file and line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ilab.training.records as records
from ilab.data import Message, TrainingRow
from ilab.errors import InputError, SetupError
from ilab.training.records import RawSample, RecordFiles, of_row, read_samples

PAIR = ({"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"})


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def one(path: Path, row: Any) -> RawSample:
    (sample,) = read_samples(write(path / "one.jsonl", row))
    return sample


def test_messages_of_instructlab(tmp_path: Path) -> None:
    row = {"messages": list(PAIR), "metadata": '{"dataset": "x"}', "id": "7f", "unmask": True}
    assert one(tmp_path, row) == RawSample("7f", PAIR, unmask=True, where=f"{tmp_path / 'one.jsonl'}:1")
    assert not one(tmp_path, {**row, "unmask": False}).unmask


def test_rows_and_samples_of_ours(tmp_path: Path) -> None:
    messages = tuple(Message.model_validate(turn) for turn in PAIR)
    row = TrainingRow(id="a#1", leaf="a", source="skill", sample="a", messages=messages, train_on="all")
    read = one(tmp_path, row.model_dump(mode="json"))
    assert read.content() == of_row(row).content()
    assert read.unmask


def test_the_old_role_pretraining_is_turns_that_are_all_trained(tmp_path: Path) -> None:
    old = "<|user|>\nWhat is 1 < 2?\n<|assistant|>\nTrue <b>\nand so on.\n"
    sample = one(tmp_path, {"messages": [{"role": "system", "content": "S"}, {"role": "pretraining", "content": old}]})
    assert [tuple(turn.values()) for turn in sample.messages] == [
        ("system", "S"), ("user", "What is 1 < 2?"), ("assistant", "True <b>\nand so on."),
    ]  # fmt: skip
    assert sample.unmask
    plain = one(tmp_path, {"messages": [{"role": "pretraining", "content": "A passage, 1 < 2."}]})
    assert plain.messages == ({"role": "user", "content": "A passage, 1 < 2."},)


def test_shapes_of_other_tools(tmp_path: Path) -> None:
    system = {"role": "system", "content": "S"}
    assert one(tmp_path, {"system": "S", "user": "Q", "assistant": "A"}).messages == (system, *PAIR)
    assert one(tmp_path, {"user": "Q", "assistant": "A"}).messages == PAIR
    completion = one(tmp_path, {"prompt": "Q", "completion": "A"})
    assert completion.messages == PAIR and completion.last
    turns = one(tmp_path, {"prompt": [*PAIR, PAIR[0]], "completion": [PAIR[1]]})
    assert turns.messages == (*PAIR, *PAIR) and turns.last
    instruction = one(tmp_path, {"instruction": "I", "input": "X", "output": "A"})
    assert instruction.messages == ({"role": "user", "content": "I\nX"}, PAIR[1])
    assert one(tmp_path, {"text": "T"}).text == "T"
    assert one(tmp_path, {"document": "D", "title": "t"}).text == "D"
    # A node dataset has its document beside the messages.
    assert one(tmp_path, {"document": "D", "messages": list(PAIR)}).text is None


def test_fields_of_agents_are_kept(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    parts = {"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "text", "text": "?"}], "weight": 1}
    thought = {"role": "assistant", "content": "A", "thinking": "hm"}
    sample = one(tmp_path, {"messages": [parts, call, thought], "tools": json.dumps([{"name": "f"}])})
    assert sample.messages == (
        {"role": "user", "content": "Q?"},
        {"role": "assistant", "tool_calls": call["tool_calls"]},
        {"role": "assistant", "content": "A", "reasoning_content": "hm"},
    )
    assert sample.tools == ({"name": "f"},)


def test_ids_are_the_rows_own_or_follow_from_what_it_holds(tmp_path: Path) -> None:
    rows = [{"messages": list(PAIR)}, {"messages": list(PAIR), "unmask": True}, {"messages": list(PAIR), "id": 3}]
    first = [sample.id for sample in read_samples(write(tmp_path / "a.jsonl", *rows))]
    assert first[2] == "3"
    assert len(set(first)) == 3
    moved = [sample.id for sample in read_samples(write(tmp_path / "b.jsonl", *reversed(rows)))]
    assert moved == list(reversed(first)), "no place in the id"


def test_json_arrays_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f'{at} [{{,}}] "é 東京"', "n": [at, {"a": at}]} for at in range(40)]
    for indent in (None, 4):
        for block in (1, 7, 64, 1 << 20):
            monkeypatch.setattr(records, "BLOCK", block)
            (tmp_path / "a.json").write_text(
                "\ufeff \n" + json.dumps(rows, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            read = list(read_samples(tmp_path / "a.json"))
            assert [sample.text for sample in read] == [row["text"] for row in rows]
    text = (tmp_path / "a.json").read_text(encoding="utf-8").splitlines()
    for sample in read[:40]:
        line = int(sample.where.rpartition(":")[2])
        assert text[line - 1].strip() == "{", "file:line is where the element begins"


@given(st.lists(st.text(max_size=9), min_size=1, max_size=9), st.integers(1, 30))
def test_an_array_reads_as_the_json_module_reads_it(texts: list[str], block: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK", block)
        path = Path(folder) / "a.json"
        path.write_text(json.dumps([{"text": f"x{text}"} for text in texts]))
        assert [sample.text for sample in read_samples(path)] == [f"x{text}" for text in texts]


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no more")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetupError, match="pyarrow") as caught:
        list(read_samples(path))
    assert "ilab[parquet]" in caught.value.hint


def test_parquet_with_pyarrow(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"messages": list(PAIR), "id": "a", "unmask": None}, {"messages": list(PAIR), "id": "b", "unmask": True}]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = list(read_samples(tmp_path / "a.parquet"))
    assert [(sample.id, sample.messages, sample.unmask) for sample in read] == [("a", PAIR, False), ("b", PAIR, True)]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="cannot be read"):
        list(read_samples(tmp_path / "b.parquet"))


def test_folders_and_their_order(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", {"text": "second"})
    write(tmp_path / "a.jsonl", {"user": "Q", "assistant": "A"})
    (tmp_path / "recipe.yaml").write_text("no data")
    files = RecordFiles.find(tmp_path)
    for _ in range(2):  # as often as one likes
        assert [sample.text for sample in files] == [None, "second"], "files may differ, rows of one file may not"
    with pytest.raises(InputError, match="no such file"):
        RecordFiles.find(tmp_path / "c.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no training data"):
        RecordFiles.find(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{"text": "a"}\n\n{"user": "Q", "assistant": "A"}\n', 3, "this row is dialogue, the rows before it are text"),
        ('{"text": "a"}\n{"text": "b"\n', 2, "not JSON"),
        ('{"text": "a"}\n[1]\n', 2, "no JSON object"),
        ('{"instruction": "a"}\n', 1, "its keys are instruction"),
        ('{"document": "a", "question": "q", "response": "r"}\n', 1, "no row of training data"),
        ('{"text": 3}\n', 1, "`text` is no text"),
        ('{"messages": []}\n', 1, "no list of messages"),
        ('{"messages": [{"content": "a"}]}\n', 1, "message 1 has no role"),
        ('{"messages": [{"role": "user"}]}\n', 1, r"message 1 \(user\) has no content"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}\n', 1, "no text"),
        ('{"messages": [{"role": "user", "content": "a"}], "tools": "["}\n', 1, "`tools` is not JSON"),
        ('{"messages": [{"role": "user", "content": "a"}], "tools": {"a": 1}}\n', 1, "no list of functions"),
        ('{"prompt": [], "completion": [{"role": "user", "content": "a"}]}\n', 1, "of the assistant's"),
        ('[{"text": "a"},\n {"text": "b"},\n {"text": 3}]', 3, "`text` is no text"),
        ('[{"text": "a"},\n {"text": }]', 2, "cannot be read"),
        ('[{"text": "a"},\n {"text": "b"}', 2, "cannot be read"),
        ('{"text": ' + "[" * 100_000 + "\n", 1, "not JSON"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_by_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        list(read_samples(path))
    assert caught.value.where == f"{path}:{line}"


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "ok"}\n{"text": "Größe"}\n'.encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8") as caught:
        list(read_samples(path))
    assert caught.value.where == f"{path}:2"
    path.write_bytes('[{"text": "Größe"}]'.encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        list(read_samples(path))


def test_files_that_instructlab_made(shared: Path) -> None:
    """Pre-generated data that lies beside the checkout, if there is any."""
    found = [*shared.rglob("train_*.jsonl"), *shared.rglob("*_train_msgs*.jsonl"), *shared.rglob("messages_*.jsonl")]
    if not found:
        pytest.skip("no pre-generated data beside this checkout")
    for path in found:
        assert all(sample.messages for sample in read_samples(path))

"""Every kind of row by file as far as the tokens that are trained, against transformers' own rendering and masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ilab.artifacts import Dataset
from ilab.config import Where
from ilab.core.files import read_records, write_records
from ilab.data import Message, TrainingRow, Turn
from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.models.templates import TEMPLATES
from ilab.training.encode import EncodedSet, encode_samples
from ilab.training.forecast import expect
from ilab.training.pieces import EncodeOptions
from ilab.training.records import of_row
from ilab.training.rows import find_rows, rows_of

TOOLS = [{"type": "function", "function": {"name": "locks", "parameters": {"type": "object", "default": None}}}]
CALL = {"type": "function", "function": {"name": "locks", "arguments": {"canal": "Brannock", "since": None}}}
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "How many locks?"},
    {"role": "assistant", "content": None, "reasoning_content": "I look.", "tool_calls": [CALL]},
    {"role": "tool", "content": "14", "tool_call_id": "c1", "name": "locks"},
    {"role": "assistant", "content": "It has 14 locks."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with the tokens of chatml, and a template with marks in the manner of transformers."""
    folder = tmp_path_factory.mktemp("chatml")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["How many locks? It has 14 locks. canal"] * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (folder / "config.json").write_text(json.dumps({"vocab_size": tokenizer.get_vocab_size(), "eos_token_id": 0}))
    (folder / "chat_template.jinja").write_text(TEMPLATES["chatml"].source)
    return folder


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def rows(path: Path) -> list[TrainingRow]:
    """Through the step's own file: what is read from it is what was written."""
    found = find_rows(str(path), Path())
    made = rows_of(found.digest, found)[0]
    dataset = Dataset(path.parent)
    dataset.write(made, {})
    assert dataset.rows() == made
    return made


def encoded(path: Path, folder: Path, limit: int = 600, **more: Any) -> EncodedSet:
    return encode_samples(map(of_row, rows(path)), Renderer.load(folder), EncodeOptions(max_length=limit, **more))


def reference(folder: Path, tools: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Tokens and mask by transformers, from our template with its answers put into generation marks."""
    from transformers import PreTrainedTokenizerFast

    source = TEMPLATES["chatml"].source
    head = "{{- '<|im_start|>assistant\\n' }}\n{%- if message['reasoning_content'] %}"
    tail = "{{- '<|im_end|>\\n' }}\n{%- elif message['role'] == 'tool' %}"
    assert source.count(head) == source.count(tail) == 1
    source = source.replace(
        head, "{{- '<|im_start|>assistant\\n' }}{% generation %}\n{%- if message['reasoning_content'] %}"
    ).replace(tail, "{{- '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}\n{%- elif message['role'] == 'tool' %}")
    made = PreTrainedTokenizerFast.from_pretrained(folder).apply_chat_template(
        [{**turn, "content": turn["content"] or ""} for turn in TURNS],
        tools=tools,
        chat_template=source,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return made["input_ids"], made["assistant_masks"]


def test_conversations_with_tools_are_trained_as_transformers_masks_them(folder: Path, tmp_path: Path) -> None:
    data = encoded(write(tmp_path / "a.jsonl", {"messages": TURNS, "tools": TOOLS}), folder)
    ids, mask = reference(folder, TOOLS)
    assert data.ids[0].tolist() == ids  # type: ignore[union-attr]
    assert [int(one) for one in data.trained[0]] == mask
    text = Renderer.load(folder).decode(ids, keep_special=True)
    assert '"default": null' in text and '"since": null' in text, "nulls inside of calls and tools are part of them"
    assert "<think>\nI look.\n</think>" in text
    assert data.audit is not None
    assert {one.role for one in data.audit.roles} == {"user", "assistant", "tool"}
    assert (data.audit.answers, data.audit.stopped) == (2, 2)


def test_tools_as_json_text_are_the_same_rows(folder: Path, tmp_path: Path) -> None:
    one = rows(write(tmp_path / "a.jsonl", {"messages": TURNS, "tools": TOOLS}))
    other = rows(write(tmp_path / "b.jsonl", {"messages": TURNS, "tools": json.dumps(TOOLS)}))
    assert one[0].tools == other[0].tools
    assert one[0].id.split("#")[1] == other[0].id.split("#")[1]
    without = rows(write(tmp_path / "c.jsonl", {"messages": TURNS}))
    assert without[0].id.split("#")[1] != one[0].id.split("#")[1]


def test_documents_are_trained_whole_and_end_in_the_end_of_text(folder: Path, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    texts = ["The canal has 14 locks.\n\n<|im_end|> is no token here. 🙂", "How many locks? " * 20]
    plain = PreTrainedTokenizerFast.from_pretrained(folder, split_special_tokens=True)
    for name in ("text", "document"):
        data = encoded(write(tmp_path / f"{name}.jsonl", *({name: text} for text in texts)), folder, 60)
        assert data.ids[0].tolist() == [*plain(texts[0])["input_ids"], 0]  # type: ignore[union-attr]
        whole = [*plain(texts[1])["input_ids"], 0]
        blocks = [data.ids[at].tolist() for at in range(1, len(data.ids))]  # type: ignore[union-attr]
        assert [blocks[0][0], *(token for block in blocks for token in block[1:])] == whole
        assert all(all(mask[1:]) for mask in data.trained) and len(blocks) == 2
        assert data.audit is not None and [one.role for one in data.audit.roles] == ["document"]


def test_a_completion_trains_nothing_of_its_prompt(folder: Path, tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}, TURNS[0]]
    answer = [{"role": "assistant", "content": "14."}]
    path = write(tmp_path / "a.jsonl", {"prompt": asked, "completion": answer}, {"prompt": "Q?", "completion": "A."})
    made = rows(path)
    assert [row.train_on for row in made] == ["last", "assistant"], "one answer is the last one"
    renderer, data = Renderer.load(folder), encoded(path, folder)
    trained = [token for token, bears in zip(data.ids[0], data.trained[0], strict=True) if bears]
    assert renderer.decode([int(one) for one in trained], keep_special=True) == "14.<|im_end|>"
    for given in ({"messages": [*asked, *answer], "train_on": "last"}, {"messages": [*asked, *answer]}):
        again = rows(write(tmp_path / "b.jsonl", given))
        assert (again[0].id.split("#")[1] == made[0].id.split("#")[1]) is ("train_on" in given)


def test_datasets_of_before_are_read_and_written_byte_for_byte(tmp_path: Path) -> None:
    line = (
        '{"id":"a#1","leaf":"a","source":"skill","sample":"a","messages":[{"role":"user","content":"Q?"},'
        '{"role":"assistant","content":"A."}],"train_on":"all"}\n'
    )
    path = tmp_path / "train.jsonl"
    path.write_text(line)
    (row,) = read_records(path, TrainingRow)
    assert [type(message) for message in row.messages] == [Message, Message]
    write_records(path, [row])
    assert path.read_text() == line
    mixed = row.model_copy(update={"messages": (row.messages[0], Turn(role="assistant", tool_calls=(CALL,)))})
    write_records(path, [mixed])
    assert list(read_records(path, TrainingRow)) == [mixed]


def test_a_row_is_a_conversation_or_a_text() -> None:
    common = {"id": "a", "leaf": "l", "source": "given", "sample": "a"}
    with pytest.raises(ValueError, match="either messages or a text"):
        TrainingRow.model_validate(common)
    with pytest.raises(ValueError, match="either messages or a text"):
        TrainingRow.model_validate({**common, "text": "x", "messages": [{"role": "user", "content": "x"}]})


def test_what_a_training_will_take_is_told_for_every_kind(folder: Path, tmp_path: Path) -> None:
    fields = {"epochs": 2, "batch": 1, "learning_rate": 1e-3, "max_length": 40, "max_batch_tokens": 40}
    documents = rows(write(tmp_path / "a.jsonl", {"text": "How many locks? " * 20}))
    pieces = encoded(tmp_path / "a.jsonl", folder, 40)
    told = expect(fields, documents, folder, Where())
    assert (told["steps"], told["tokens"]) == (2 * len(pieces.rows), 2 * sum(pieces.lengths))
    calls = rows(write(tmp_path / "b.jsonl", {"messages": TURNS, "tools": TOOLS}))
    assert expect({**fields, "max_length": 600}, calls, folder, Where())["tokens"] == 2 * len(
        reference(folder, TOOLS)[0]
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "assistant", "tool_calls": {"name": "f"}}]}, "message 1: tool_calls is no list"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": "f"}]}]}, "message 1: a call names no"),
        ({"messages": TURNS, "tools": "{"}, "`tools` is not JSON"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": 3}]}, "message 1: tool_call_id is no text"),
        ({"messages": TURNS[:1]}, "none of the 1 rows of this file has an answer"),
        ({"text": "  \n"}, "none of the 1 rows"),
        ({"messages": TURNS, "unmask": "yes"}, "unmask is true or false, not 'yes'"),
        ({"messages": TURNS, "train_on": "answers"}, "train_on is assistant, last, all, not 'answers'"),
        ({"text": "half \ud83d of it"}, r"this row holds \\ud83d alone, half of a character"),
        ({"messages": TURNS, "tools": [{"default": float("nan")}]}, "this line is not JSON: NaN is no JSON number"),
    ],
)
def test_what_cannot_be_trained_is_named(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        find_rows(str(write(tmp_path / "a.jsonl", row)), Path())
    assert "a.jsonl" in str(caught.value.where) and caught.value.hint


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ('{"text": "Größe"}\n'.encode("latin-1"), "save the file as UTF-8"),
        ('{"text": "Größe"}\n'.encode("utf-16"), "the file is in UTF-16"),
        (b"\x1f\x8b\x08\x00\xff", "the file is compressed: gunzip FILE"),
        (b"", "a row is {messages}"),
        (b"[]", "a row is {messages}"),
    ],
)
def test_files_that_hold_no_rows_say_what_they_are(tmp_path: Path, data: bytes, hint: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        find_rows(str(path), Path())
    assert caught.value.hint.startswith(hint) and str(path) in caught.value.where


def test_what_is_missing_is_named_with_what_to_do_about_it(folder: Path, tmp_path: Path) -> None:
    long = write(tmp_path / "a.jsonl", {"prompt": "Q? " * 99, "completion": "A."}, {"prompt": "Q?", "completion": "A"})
    for count, limit in ((1, 30), (2, 4)):
        given = [of_row(row) for row in rows(long)]
        options = EncodeOptions(max_length=limit, over_length="drop" if count == 2 else "error")
        with pytest.raises(InputError, match="over train_sequence_length") as caught:
            encode_samples(given, Renderer.load(folder), options)
        assert "train_over_length" in caught.value.hint
    endless = tmp_path / "endless"
    endless.mkdir()
    (endless / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
    with pytest.raises(InputError, match="no token that ends a text") as caught:
        encode_samples(
            [of_row(one) for one in rows(write(tmp_path / "b.jsonl", {"text": "x y"}))],
            Renderer.load(endless),
            EncodeOptions(max_length=60),
        )
    assert "eos_token" in caught.value.hint

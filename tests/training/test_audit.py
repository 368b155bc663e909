"""What long rows become, and what is told and refused before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.data import Message, TrainingRow
from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.training.audit import Audit
from ilab.training.encode import EncodedSet, encode_samples, split_rows
from ilab.training.pieces import EncodeOptions, sample_of
from ilab.training.records import RawSample, of_row


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return Renderer.load(tiny_model)


def talk(name: str, *contents: str, system: str = "", **more: Any) -> RawSample:
    """Turns of a user and an assistant by turns."""
    turns = [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(contents)]
    return RawSample(name, tuple([{"role": "system", "content": system}] * bool(system) + turns), **more)


def texts(data: EncodedSet, renderer: Renderer) -> dict[str, str]:
    """Each piece's text with ⟦ ⟧ around what bears loss."""
    found = {}
    for name, ids, trained in zip(data.rows, data.ids, data.trained, strict=True):
        text, before = "", False
        for at in range(len(ids) + 1):
            now = at < len(ids) and bool(trained[at])
            text += "⟦" * (now and not before) + "⟧" * (before and not now)
            text += renderer.decode([int(ids[at])], keep_special=True) if at < len(ids) else ""
            before = now
        found[name] = text
    return found


def audit_of(data: EncodedSet) -> Audit:
    assert data.audit is not None
    return data.audit


def options(max_length: int, **more: Any) -> EncodeOptions:
    return EncodeOptions(max_length=max_length, **more)


LONG = talk("long", "Why?", "Because. " * 40)
SHORT = talk("short", "Who?", "I.")


def test_shares_are_counted_by_role(renderer: Renderer) -> None:
    """Against a count by hand: one token a character but for the special ones, which this tokenizer never merges."""
    samples = [talk("a", "xq", "zz", system="jj"), talk("b", "xq", "zz", unmask=True)]
    audit = audit_of(encode_samples(samples, renderer, options(100)))
    # <|system|> \n j j \n; <|user|> \n x q \n; <|assistant|> \n z z <|end|> \n
    assert {one.role: (one.tokens, one.trained) for one in audit.roles} == {
        "system": (5, 0), "user": (10, 2), "assistant": (12, 6),
    }  # fmt: skip
    assert (audit.rows, audit.pieces, audit.tokens, audit.trained) == (2, 2, 27, 8)
    assert (audit.answers, audit.stopped) == (2, 2)
    assert audit.lengths is not None and (audit.lengths.shortest, audit.lengths.longest) == (11, 16)
    assert "user: 10 tokens, 20.0 % bear loss" in audit.summary()
    assert audit.template.startswith("own "), "a hash, and no place on this machine"
    assert Audit.model_validate_json(json.dumps(audit.model_dump(mode="json"))) == audit, "it is plain JSON"


def test_dropped_rows_are_named(renderer: Renderer) -> None:
    data = encode_samples([SHORT, LONG, talk("mute", "x")], renderer, options(60))
    audit = audit_of(data)
    assert data.rows == ("short",)
    assert [(one.id, one.row, one.over_length) for one in audit.left_out] == [("long", 2, True), ("mute", 3, False)]
    whole = len(renderer.encode(LONG.messages, "assistant").ids)
    assert audit.left_out[0].tokens == whole
    assert audit.lost == whole + audit.left_out[1].tokens
    assert "left out, over the limit: 1 (long in row 2)" in audit.summary()
    assert data.left_out[1] == ("mute", "no token that bears loss")


def test_an_error_names_all_long_rows(renderer: Renderer) -> None:
    samples = [SHORT, *(talk(f"long-{at}", "Why?", "Because. " * 40) for at in range(12))]
    with pytest.raises(
        InputError, match=r"rows over train_sequence_length 60: 12 \(long-0 in row 2, .*long-9 in row 11 and 2 more"
    ):
        encode_samples(samples, renderer, options(60, over_length="error"))
    assert encode_samples([SHORT], renderer, options(60, over_length="error")).rows == ("short",)


def test_a_cut_answer_gets_no_stop_token(renderer: Renderer) -> None:
    samples = [SHORT, LONG, talk("question", "Why? " * 60, "So.")]
    data = encode_samples(samples, renderer, options(60, over_length="truncate"))
    audit = audit_of(data)
    assert data.rows == ("short", "long")
    assert data.lengths[1] == 60
    assert list(data.ids[1]) == renderer.encode(LONG.messages, "assistant").ids[:60]
    assert not renderer.stop_ids & set(data.ids[1].tolist())  # type: ignore[union-attr]
    assert audit.truncated == ("long",)
    assert (audit.answers, audit.stopped) == (2, 1)
    assert "none of the first 60 bears loss" in audit.left_out[0].reason
    assert "cut at the limit, without a stop token: 1 (long)" in audit.summary()
    with pytest.raises(InputError, match="never stop"):
        encode_samples([LONG], renderer, options(60, over_length="truncate"))


def test_conversations_are_split_between_exchanges(renderer: Renderer) -> None:
    turns = [text for at in range(6) for text in (f"Q{at}?", f"A{at}. " + "x" * 9)]
    sample = talk("talk", *turns, system="S")
    data = encode_samples([sample], renderer, options(70, over_length="split"))
    found = list(texts(data, renderer).values())
    assert data.rows == tuple(f"talk/part-{at}" for at in range(1, len(found) + 1)) and len(found) > 1
    assert all(text.startswith("<|system|>\nS\n<|user|>\nQ") for text in found)
    assert all(length <= 70 for length in data.lengths)
    trained = [part.split("⟧")[0] for text in found for part in text.split("⟦")[1:]]
    assert trained == [f"{answer}<|end|>" for answer in turns[1::2]], "every answer once, whole"
    assert audit_of(data).split == ("talk",)
    # An exchange that is too long on its own goes, by name; the others stay.
    sample = talk("talk", *turns[:2], "Why?", "Because. " * 40, *turns[2:4])
    data = encode_samples([sample], renderer, options(40, over_length="split"))
    assert data.rows == ("talk/part-1", "talk/part-3")
    assert data.left_out[0][0] == "talk/part-2"
    # Where only the last turn is trained, the end that fits is what is left.
    data = encode_samples([talk("talk", *turns)], renderer, options(50, over_length="split", train_on="last"))
    (text,) = texts(data, renderer).values()
    assert text.endswith(f"⟦{turns[-1]}<|end|>⟧\n") and "Q0" not in text and "Q4" in text
    assert encode_samples([SHORT, LONG], renderer, options(60, over_length="split")).left_out[0][0] == "long"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(2, 40))
def test_every_token_of_a_document_is_predicted_once(tiny_model: Path, words: int, limit: int) -> None:
    renderer = Renderer.load(tiny_model)
    text = " ".join(f"w{at}" for at in range(words))
    data = encode_samples([RawSample("d", text=text)], renderer, options(limit))
    whole = renderer.encode_document(text).ids
    predicted = [
        int(token)
        for ids, mask in zip(data.ids, data.trained, strict=True)
        for token, bears in zip(ids[1:], mask[1:], strict=True)
        if bears
    ]
    assert predicted == whole[1:]
    assert max(data.lengths) <= limit
    assert [int(data.ids[at + 1][0]) for at in range(len(data.rows) - 1)] == [
        int(data.ids[at][-1]) for at in range(len(data.rows) - 1)
    ]
    assert audit_of(data).trained == len(whole) - 1
    assert (audit_of(data).answers, audit_of(data).stopped) == (1, 1)
    assert {sample_of(row) for row in data.rows} == {"d"}


def test_no_block_holds_two_documents(renderer: Renderer) -> None:
    documents = [RawSample(f"d{at}", text=f"Document {at}. " * 7) for at in range(5)]
    data = encode_samples(documents, renderer, options(48))
    for row, text in texts(data, renderer).items():
        assert {word for word in text.split() if word.rstrip(".").isdigit()} <= {f"{sample_of(row)[1:]}."}


def test_which_turns_a_row_trains(renderer: Renderer) -> None:
    turns = ("Q1", "A1", "Q2", "A2")
    samples = [talk("plain", *turns), talk("unmask", *turns, unmask=True), talk("last", *turns, last=True)]
    wanted = {
        "assistant": [["A1<|end|>", "A2<|end|>"], ["Q1", "A1<|end|>", "Q2", "A2<|end|>"], ["A2<|end|>"]],
        "last": [["A2<|end|>"], ["Q1", "A1<|end|>", "Q2", "A2<|end|>"], ["A2<|end|>"]],
        "all": [["Q1", "A1<|end|>", "Q2", "A2<|end|>"]] * 3,
    }
    for train_on, expected in wanted.items():
        data = encode_samples(samples, renderer, options(100, train_on=train_on))
        found = [[part.split("⟧")[0] for part in text.split("⟦")[1:]] for text in texts(data, renderer).values()]
        assert found == expected, train_on


def test_sets_that_must_not_be_trained_on(renderer: Renderer, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="the dataset is empty"):
        encode_samples([], renderer, options(60))
    with pytest.raises(InputError, match="1 of 1 row left out, the first for this: no token that bears loss"):
        encode_samples([talk("mute", "x")], renderer, options(60))
    mute = renderer.with_template("{% for m in messages %}{{ m.role + m.content }}{% endfor %}", "here")
    with pytest.raises(InputError, match="never stop"):
        encode_samples([talk("a", "x", "y")], mute, options(60))
    growing = renderer.with_template("{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}", "here")
    with pytest.raises(InputError, match=r"row 1 \(a\): the chat template changes earlier text") as caught:
        encode_samples([talk("a", "x", "y", where="rows.jsonl:7")], growing, options(60))
    assert caught.value.where == "rows.jsonl:7"


def test_reasoning_that_is_not_written_is_told(renderer: Renderer) -> None:
    turns = ({"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "reasoning_content": "hm"})
    audit = audit_of(encode_samples([RawSample("a", turns)], renderer, options(60)))
    assert audit.reasoning_ignored == 1
    assert "reasoning that the template does not write, ignored: 1 row" in audit.summary()


def test_an_empty_block_of_reasoning_that_would_be_learnt_is_told(renderer: Renderer) -> None:
    assert renderer.opening == ""
    template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}<think></think>{% endif %}"
        "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    audit = audit_of(encode_samples([SHORT], renderer.with_template(template, "here"), options(60)))
    assert "opens each answer with '<think></think>', which bears loss" in audit.summary()


def test_parts_of_a_sample_are_held_out_together(renderer: Renderer) -> None:
    documents = [RawSample(f"d{at}", text="Some words of this document. " * 12) for at in range(30)]
    data = encode_samples(documents, renderer, options(48))
    training, held_out = split_rows(data, 0.3, 1)
    assert len(held_out.rows) > 3
    assert not {sample_of(row) for row in training.rows} & {sample_of(row) for row in held_out.rows}
    assert sorted(training.rows + held_out.rows) == sorted(data.rows)
    by_name = dict(zip(data.rows, data.ids, strict=True))
    for part in (training, held_out):
        assert all((by_name[row] == ids).all() for row, ids in zip(part.rows, part.ids, strict=True))
        assert part.trained_counts == [int(mask[1:].sum()) for mask in part.trained]  # type: ignore[union-attr]
        assert part.lengths == [len(ids) for ids in part.ids]


def test_rows_of_a_mix_become_the_same_tokens_as_ever(renderer: Renderer) -> None:
    messages = (Message(role="user", content="How many locks?"), Message(role="assistant", content="14 🙂"))
    row = TrainingRow(id="r", leaf="l", source="skill", sample="s", messages=messages)
    rows = [row, row.model_copy(update={"id": "r2", "train_on": "all"})]
    data = encode_samples(map(of_row, rows), renderer, options(64))
    for at, train_on in enumerate(("assistant", "all")):
        expected = renderer.encode(messages, train_on)
        assert data.ids[at].tolist() == expected.ids  # type: ignore[union-attr]
        assert data.trained[at].tolist() == expected.trained  # type: ignore[union-attr]

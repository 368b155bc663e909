"""Answers as models write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.sdg.parse import parse_tags

PAIR = [{"question": "Who built it?", "answer": "Ada did."}]


@pytest.mark.parametrize(
    "text",
    [
        "[QUESTION]\nWho built it?\n[/QUESTION]\n[ANSWER]\nAda did.\n[/ANSWER]",
        "[QUESTION] Who built it? [ANSWER] Ada did. [END]",
        "[QUESTION]Who built it?[END QUESTION][ANSWER]Ada did.[END ANSWER]",
        "[question]Who built it?[/question][Answer]Ada did.",
        "Sure:\n\n[ QUESTION ]\nWho built it?\n[ / QUESTION ]\n\n[ANSWER ]\nAda did.\n[/ANSWER]\nMore?",
        "<question>Who built it?</question>\n<answer>Ada did.</answer>",
        "<QUESTION>Who built it?\n<ANSWER>Ada did.<END>",
        "Question: Who built it?\nAnswer: Ada did.",
        "**Question:** Who built it?\n\n**Answer:** Ada did.",
        "**Question**: Who built it?\n**Answer**: Ada did.",
        "### Question\nWho built it?\n### Answer\nAda did.",
        "1. Question: Who built it?\n   Answer: Ada did.",
        "Question 1: Who built it?\nAnswer 1: Ada did.",
        "Q: Who built it?\nA: Ada did.",
        "<think>[QUESTION] no [ANSWER] no</think>\n[QUESTION]Who built it?[/QUESTION][ANSWER]Ada did.[/ANSWER]",
        "QUESTION: Who built it?\r\nANSWER: Ada did.\r\n",
    ],
)
def test_forms_of_one_pair(text: str) -> None:
    assert parse_tags(text, ["QUESTION", "ANSWER"]) == PAIR


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help with that.",
        "[QUESTION]Who?[/QUESTION]",
        "[ANSWER]Ada[/ANSWER]",
        "[QUESTION][/QUESTION][ANSWER]x",
    ],
)
def test_what_is_no_pair(text: str) -> None:
    assert parse_tags(text, ["QUESTION", "ANSWER"]) == []


def test_several_pairs_and_an_unfinished_one_between() -> None:
    text = "[QUESTION]a?[ANSWER]A\n[QUESTION]lost?\n[QUESTION]b?[/QUESTION][ANSWER]B[/ANSWER]"
    assert parse_tags(text, ["QUESTION", "ANSWER"]) == [
        {"question": "a?", "answer": "A"},
        {"question": "b?", "answer": "B"},
    ]


def test_a_cut_off_answer_is_trusted_only_as_far_as_it_is_closed() -> None:
    first = "[QUESTION]a?[/QUESTION][ANSWER]A[/ANSWER]"
    assert parse_tags(first, ["QUESTION", "ANSWER"], truncated=True) == [{"question": "a?", "answer": "A"}]
    cut = first + "[QUESTION]b?[/QUESTION][ANSWER]half of an an"
    assert len(parse_tags(cut, ["QUESTION", "ANSWER"])) == 2
    assert len(parse_tags(cut, ["QUESTION", "ANSWER"], truncated=True)) == 1


def test_words_that_look_like_tags_inside_a_sentence_are_text() -> None:
    text = "[QUESTION]Is the question: why?[/QUESTION][ANSWER]The answer: A: or B: is a list [1] <b>.[/ANSWER]"
    assert parse_tags(text, ["QUESTION", "ANSWER"]) == [
        {"question": "Is the question: why?", "answer": "The answer: A: or B: is a list [1] <b>."}
    ]


plain = st.text(st.characters(codec="utf-8", exclude_characters="[]<>*:：#\r", exclude_categories=["Cc", "Cs"])).map(
    str.strip
)


@given(st.lists(st.tuples(plain.filter(bool), plain.filter(bool)), min_size=1, max_size=4))
def test_whatever_is_written_in_tags_is_read_back(pairs: list[tuple[str, str]]) -> None:
    text = "\n".join(f"[QUESTION]\n{q}\n[/QUESTION]\n[ANSWER]\n{a}\n[/ANSWER]" for q, a in pairs)
    assert parse_tags(text, ["QUESTION", "ANSWER"]) == [{"question": q, "answer": a} for q, a in pairs]


@given(st.text(max_size=300))
def test_no_text_makes_it_fail(text: str) -> None:
    for record in parse_tags(text, ["QUESTION", "ANSWER"]):
        assert set(record) == {"question", "answer"}
        assert all(record.values())

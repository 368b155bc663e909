"""Near-duplicates are those that comparing all pairs finds, and only in what a teacher wrote."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilab.data import Message, Origin, Sample
from ilab.models.chat import prompt_text
from ilab.sdg.made import Made
from ilab.sdg.near import FOUND, PERMUTATIONS, Text, bands, jaccard, near_duplicates, repeats, shingles

WORDS = [f"word{n}" for n in range(3000)]


def sample_texts(count: int, seed: int) -> list[Text]:
    """Pairs of 10 and 30 words; half of them come again with up to eight words changed."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        words = draw.choices(WORDS, k=40)
        for _ in range(draw.choice((1, 1, 2, 3))):
            texts.append(Text(" ".join(words[:10]), " ".join(words[10:])))
            words = list(words)
            for _ in range(draw.randint(1, 4)):
                words[draw.randrange(40)] = draw.choice(WORDS)
    draw.shuffle(texts)
    return texts


@cache
def cut(text: str) -> frozenset[str]:
    return shingles(text)


def likeness(one: Text, other: Text) -> float:
    """0 where answers or contexts differ too much for a threshold of 0.8."""
    parts = [
        jaccard(cut(one.question) | cut(one.answer), cut(other.question) | cut(other.answer)),
        jaccard(cut(one.answer), cut(other.answer)),
        jaccard(cut(one.context or ""), cut(other.context or "")),
    ]
    return parts[0] if min(parts) >= 0.8 else 0.0


def compare_all(texts: list[Text]) -> dict[int, tuple[int, float]]:
    staying: list[int] = []
    found = {}
    for number, text in enumerate(texts):
        near = next(((first, like) for first in staying if (like := likeness(texts[first], text)) >= 0.8), None)
        if near:
            found[number] = near
        else:
            staying.append(number)
    return found


def test_recall_and_precision_against_all_pairs() -> None:
    texts = sample_texts(700, seed=1)
    exact, found = compare_all(texts), repeats(texts, 0.8)
    assert len(exact) > 60
    assert set(found) <= set(exact)  # candidates are compared exactly: nothing is refused that is not alike
    assert len(found) >= 0.98 * len(exact)
    for number, (first, similarity) in found.items():
        assert first < number and first not in found
        assert similarity == pytest.approx(likeness(texts[first], texts[number]))


def test_bands_find_pairs_at_the_threshold() -> None:
    assert bands(0.8) == (21, 6)
    for threshold in (0.05, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99):
        count, width = bands(threshold)
        assert count * width <= PERMUTATIONS
        assert 1 - (1 - threshold**width) ** count >= FOUND


@given(st.lists(st.text(alphabet="ab ", max_size=12), max_size=12))
def test_equal_texts_are_always_found_and_the_first_stays(texts: list[str]) -> None:
    found = repeats([Text(text, "yes") for text in texts], 0.9)
    words = [tuple(text.split()) for text in texts]
    for number, text in enumerate(words):
        if text in words[:number]:
            assert number in found
            assert words[found[number][0]] == text or found[number][1] >= 0.9


def test_what_only_looks_alike_stays() -> None:
    passage = " ".join(WORDS[:300])
    texts = [
        Text("How many lamps were there in the tower in the year 1871 after the great storm?", "twelve lamps", None),
        Text("How many lamps were there in the tower in the year 1871 after the great storm?", "nine lamps", None),
        Text(f"Summarise this passage. {passage}", "It is about towers and lamps and keepers.", None),
        Text(f"Summarise this passage. {passage}", "The keepers of old lived in high places.", None),
        Text("Is it about the sea?", "Yes, it is about the sea.", passage),
        Text("Is it about the sea?", "Yes, it is about the sea.", " ".join(WORDS[400:700])),
        Text("Is it about the sea?", "Yes, it is about the sea.", None),
    ]
    assert repeats(texts, 0.8) == {}
    assert repeats([*texts, texts[4]], 0.8) == {7: (4, 1.0)}


def test_among_many_of_one_pattern_close_copies_are_found() -> None:
    draw = random.Random(3)
    frame = draw.choices(WORDS, k=44)
    texts = [
        Text(" ".join([*frame[:10], *draw.choices(WORDS, k=4)]), " ".join([*frame[10:], *draw.choices(WORDS, k=4)]))
        for _ in range(600)
    ]
    copies = [text._replace(answer=f"{text.answer} indeed") for text in texts[::10]]
    found = repeats([*texts, *copies], 0.8)
    for number in range(len(copies)):
        assert len(texts) + number in found


def made(identity: str, text: Text, teacher: str | None = "t", train_on: str = "assistant") -> Made:
    leaf = identity.partition("#")[0]
    messages = (
        Message(role="user", content=prompt_text(text.question, text.context)),
        Message(role="assistant", content=text.answer),
    )
    origin = Origin(leaf=leaf, leaf_digest="0", flow="f", block="b", teacher=teacher)
    sample = Sample(id=identity, leaf=leaf, messages=messages, train_on=train_on, origin=origin)
    return Made(sample, text.question, text.context)


ONE = Text(
    "What is the casing of the large kiln in the workshop made of?", "The casing of the kiln is made of blue steel."
)
TWO = ONE._replace(question="What is the casing of the large kiln in the workshop made of, please?")


def test_the_first_by_id_stays_within_and_across_leaves() -> None:
    rows = [made("b#1", TWO), made("b#2", ONE), made("a#1", TWO), made("c#1", Text("Who?", "Ada"))]
    kept, dropped = near_duplicates(rows, 0.8)
    assert [one.sample.id for one in kept] == ["a#1", "c#1"]
    assert [(entry.id, entry.leaf, entry.block) for entry in dropped] == [
        ("b#1", "b", "near-duplicates"),
        ("b#2", "b", "near-duplicates"),
    ]
    assert dropped[0].reason == "near-duplicate: 1.00 alike to a#1"
    assert dropped[1].reason == "near-duplicate: 0.94 alike to a#1"
    assert near_duplicates(rows, 1.0) == (rows, [])


def test_only_pairs_that_a_teacher_wrote_are_compared() -> None:
    rows = [made("a#1", ONE, teacher=None), made("a#2", TWO), made("a#3", TWO, teacher=None)]
    rows += [made("a#4", ONE, train_on="all"), made("a#5", TWO, train_on="all")]
    assert near_duplicates(rows, 0.8) == (rows, [])


def test_the_result_depends_neither_on_order_nor_on_the_process() -> None:
    texts = sample_texts(200, seed=2)
    rows = [made(f"k#{number:04}", text) for number, text in enumerate(texts)]
    straight = near_duplicates(rows, 0.8)
    backwards = near_duplicates(rows[::-1], 0.8)
    assert [one.sample.id for one in straight[0]] == [one.sample.id for one in backwards[0]][::-1]
    assert straight[1] == backwards[1][::-1]
    code = "from ilab.sdg.near import *; print(_keys([Text('a b c', 'd e'), Text('', ''), Text('x', 'y')], 2, 3)[0].tolist())"
    code = code.replace("import *", "import Text, _keys")
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1

"""Duplicates and held-out items never become training data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ilab.data import Item, Message, Origin, Sample
from ilab.sdg.decontaminate import SIMILAR, HeldOut, decontaminate
from ilab.sdg.dedup import dedup
from ilab.sdg.text import normal, words


def sample(identity: str, question: str, answer: str, train_on: str = "assistant") -> Sample:
    leaf = identity.partition("#")[0]
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    origin = Origin(leaf=leaf, leaf_digest="0", flow="f", block="b")
    return Sample(id=identity, leaf=leaf, messages=messages, train_on=train_on, origin=origin)


def item(identity: str, question: str, gold: str, context: str | None = None) -> Item:
    return Item(
        id=identity,
        leaf="k",
        split="test",
        kind="exact",
        question=question,
        context=context,
        gold=gold,
        cluster="c",
    )


def test_the_first_by_id_stays_within_and_across_leaves() -> None:
    samples = [
        sample("b#1/q", "Who built IT?", "Ada."),
        sample("a#2/q", "who built it", "Ada"),
        sample("a#2/r", "Who built it?", "Bob"),
        sample("b#1/r", " who  built it ", " ada "),
        sample("b#1/t", "Who built it?", "Ada", train_on="all"),
    ]
    kept, dropped = dedup(samples)
    assert [s.id for s in kept] == ["a#2/q", "a#2/r", "b#1/t"]
    assert [(d.id, d.reason) for d in dropped] == [
        ("b#1/q", "duplicate: the same as a#2/q"),
        ("b#1/r", "duplicate: the same as a#2/q"),
    ]


def test_answers_without_words_are_told_apart() -> None:
    kept, _ = dedup([sample("a#1", "Which sign?", "+"), sample("a#2", "Which sign?", "-")])
    assert len(kept) == 2


def test_items_and_near_copies_go_and_the_item_is_named() -> None:
    long = "On which day of the week does the old keeper of the tower light the great lamp"
    items = [
        item("i/1", "Who built the tower?", "Ada"),
        item("i/2", "Make a record.", "nails | library", context="The library wants nails."),
        item("i/3", long + "?", "Monday"),
    ]
    samples = [
        sample("k#1", "WHO built the tower", "Bob"),  # the same question, whatever the answer
        sample("k#2", "Make a record.\nThe library wants nails.", "nails | library"),
        sample("k#3", "Make a record.\nThe library wants ropes.", "ropes | library"),
        sample("k#4", long + " now?", "Monday"),
        sample("k#5", long + " now?", "Tuesday"),
        sample("k#6", "Who built the tower?", "Ada", train_on="all"),
    ]
    kept, dropped = decontaminate(samples, items)
    assert [s.id for s in kept] == ["k#3", "k#5", "k#6"]
    assert [d.reason.split()[-1] for d in dropped] == ["i/1", "i/2", "i/3"]
    assert all(d.reason.startswith("held out: ") for d in dropped)


def test_near_means_nine_tenths() -> None:
    base = " ".join(f"w{n}" for n in range(19))
    held_out = HeldOut([item("i", base, "yes")])
    assert held_out.match(base + " extra", "yes") is not None  # 19 of 20
    assert held_out.match(base + " one two", "yes") is not None  # 19 of 21: 0.905
    assert held_out.match(base + " one two three", "yes") is None  # 19 of 22: 0.864


texts = st.lists(st.sampled_from("abcdefghijklmnopqrst"), min_size=1, max_size=14).map(" ".join)


@given(st.lists(st.tuples(texts, st.sampled_from(["x", "y"])), max_size=8), texts, st.sampled_from(["x", "y"]))
def test_the_index_finds_exactly_what_comparing_with_every_item_finds(
    held: list[tuple[str, str]], question: str, answer: str
) -> None:
    def near(other: str, gold: str) -> bool:
        a, b = set(words(question)), set(words(other))
        return normal(question) == normal(other) or (answer == gold and len(a & b) >= SIMILAR * len(a | b) - 1e-12)

    held_out = HeldOut(item(f"i/{n}", text, gold) for n, (text, gold) in enumerate(held))
    assert (held_out.match(question, answer) is not None) == any(near(text, gold) for text, gold in held)

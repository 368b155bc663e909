"""Planted faults are diagnosed as what they are, each with its evidence; what is fine is not diagnosed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ilab.data import Chunk, Item, Leaf, Message, Origin, Place, QuestionAnswer, Rejected, Sample, Score, SeedExample
from ilab.evaluation.diagnose import Diagnosis, Tries, covers, diagnose
from ilab.evaluation.diagnose_index import WordIndex, stems
from ilab.evaluation.diagnose_taught import Taught, agrees, asks_same

MILL, ABBEY = "knowledge/places/ostrey_mill", "knowledge/places/ostrey_abbey"
NOTE = "compositional_skills/notes/short_note"
FACTS = (  # (subject of the question, answer, sentence of the document)
    ("What is the water wheel of Ostrey Mill made of?", "larch", "The water wheel of Ostrey Mill is made of larch."),
    ("Who built Ostrey Mill?", "Janna Wickel", "Ostrey Mill was built by Janna Wickel."),
    ("In which year was the weir of Ostrey Mill raised?", "1784", "The weir of Ostrey Mill was raised in 1784."),
    ("How many sacks does the loft of Ostrey Mill hold?", "240", "The loft of Ostrey Mill holds 240 sacks."),
    ("Which bird nests in the roof of Ostrey Mill?", "swift", "The swift nests in the roof of Ostrey Mill."),
    ("Which grain is ground at Ostrey Mill on Friday?", "rye", "On Friday rye is ground at Ostrey Mill."),
)


def chunk(leaf: str, name: str, sentences: Sequence[str]) -> Chunk:
    text = " ".join(sentences)
    return Chunk(
        id=name, leaf=leaf, document="d" * 64, source=f"{leaf}/text.md", heading=("Parts",), span=(0, len(text)),
        text=text, tokens=50,
    )  # fmt: skip


CHUNKS = (
    chunk(MILL, "aaaa0001", [fact[2] for fact in FACTS[:3]]),
    chunk(MILL, "aaaa0002", [fact[2] for fact in FACTS[3:]]),
    chunk(ABBEY, "bbbb0001", ["Ostrey Mill was built by Piet Laskey.", "The abbey bell weighs 900 kilograms."]),
)


def sample(question: str, answer: str, where: str = "aaaa0001", leaf: str = MILL, branch: str = "ask-1") -> Sample:
    return Sample(
        id=f"{leaf}#{where}/{branch}",
        leaf=leaf,
        messages=(Message(role="user", content=question), Message(role="assistant", content=answer)),
        origin=Origin(leaf=leaf, leaf_digest="e" * 64, chunk=where or None, flow="full", block="ask"),
    )


def taught_facts() -> list[Sample]:
    """Three wordings of every fact."""
    return [
        sample(form.format(question), answer, f"aaaa000{1 + number // 3}", branch=f"ask-{number}-{turn}")
        for number, (question, answer, _) in enumerate(FACTS)
        for turn, form in enumerate(("{}", "Please tell me: {}", "{} Answer briefly."))
    ]


def item(number: int, **changes: object) -> Item:
    question, gold, _ = FACTS[number]
    known = {"id": f"{MILL}/eval/{number}", "leaf": MILL, "split": "test", "kind": "exact", "question": question}
    return Item.model_validate({**known, "gold": gold, "cluster": str(number), **changes})


def score(one: Item, answer: str, model: str = "phase 2", value: float | None = None) -> Score:
    right = float(answer == one.gold) if value is None else value
    return Score(
        item=one.id, leaf=one.leaf, model=model, kind=one.kind, cluster=one.cluster, value=right, answer=answer
    )


def place(line: int, leaf: str = MILL) -> Place:
    return Place(file=f"{leaf}/qna.yaml", line=line, column=3)


def leaf(path: str = MILL, pairs: Sequence[tuple[str, str]] = ()) -> Leaf:
    seeds = tuple(
        SeedExample(
            context="",
            pairs=(QuestionAnswer(question=question, answer=answer, place=place(10 + number, path)),),
            place=place(9, path),
        )
        for number, (question, answer) in enumerate(pairs)
    )
    kind = "knowledge" if path.startswith("knowledge") else "freeform"
    return Leaf(path=path, kind=kind, version=3, created_by="me", seeds=seeds, digest="e" * 64, place=place(1, path))


def causes(
    one: Item, samples: Sequence[Sample], answer: str, earlier: str = "?", before: str = "?", **more: object
) -> Diagnosis:
    scores = {
        "base": [score(one, before, "base")],
        "phase 1": [score(one, earlier, "phase 1")],
        "phase 2": [score(one, answer)],
    }
    taught = replace(Taught(samples, chunks=CHUNKS, leaves=(leaf(),)), **more)  # type: ignore[arg-type]
    (found,) = diagnose([one], Tries.of(scores, "base", "phase 2"), taught)
    assert found.advice and found.because
    return found


def test_taught_and_still_wrong_is_not_learned_with_the_samples_as_evidence():
    found = causes(item(0), taught_facts(), "oak")
    assert found.cause == "not learned"
    assert found.samples == tuple(f"{MILL}#aaaa0001/ask-0-{turn}" for turn in range(3))
    assert "3 samples teach it" in found.because and "ilab run" in found.advice


@pytest.mark.parametrize(
    ("kept", "refused", "chunk_id", "words"),
    [
        (lambda one: "aaaa0002" not in one.id, 0, "aaaa0002", "no sample was ever made from the passage"),
        (lambda one: "aaaa0002" not in one.id, 4, "aaaa0002", "all 4 rows made from the passage were refused"),
        (lambda one: "/ask-3" not in one.id, 0, "aaaa0002", "6 samples were made from the passage that says it"),
    ],
)
def test_not_covered_says_where_it_broke_off(kept, refused, chunk_id, words):
    rejected = [
        Rejected(id=f"{MILL}#aaaa0002/ask-{n}", leaf=MILL, block="faithful", reason="not in the passage", row={})
        for n in range(refused)
    ]
    found = causes(item(3), [one for one in taught_facts() if kept(one)], "90", rejected=rejected)
    assert (found.cause, found.chunk) == ("not covered", chunk_id)
    assert words in found.because
    assert found.source == f"{MILL}/text.md (Parts)"
    assert len(found.rejected) == min(refused, 3)


def test_what_no_document_says_is_not_covered_and_named_so():
    one = item(0, question="Who painted the sign of Ostrey Mill?", gold="Ruth Ambler")
    found = causes(one, taught_facts(), "Janna Wickel")
    assert (found.cause, found.chunk) == ("not covered", None)
    assert "no document" in found.because and f"{MILL}/qna.yaml:1:3" in found.advice


def test_a_passage_that_was_only_read_is_no_question():
    read = sample("Parts", CHUNKS[1].text, "aaaa0002").model_copy(update={"train_on": "all"})
    found = causes(item(4), [*(one for one in taught_facts() if "aaaa0002" not in one.id), read], "owl")
    assert found.cause == "not covered" and "only read" in found.because


def test_an_invented_answer_is_a_wrong_sample():
    wrong = sample(FACTS[2][0], "1873", branch="ask-bad")
    found = causes(item(2), [*taught_facts(), wrong], "1873")
    assert found.cause == "wrong sample"
    assert found.samples[0] == wrong.id and found.chunk == "aaaa0001"
    assert "“1873” instead of “1784”" in found.because and wrong.id in found.advice


def test_an_invented_answer_under_another_wording_is_a_wrong_sample():
    wrong = sample("Ostrey Mill's water wheel: what is it made of, in the book?", "cast iron", branch="ask-bad")
    found = causes(item(0), [*taught_facts(), wrong], "cast iron")
    assert (found.cause, found.samples[0]) == ("wrong sample", wrong.id)


def test_two_leaves_that_disagree_are_a_conflict_with_both_places():
    other = sample(FACTS[1][0], "Piet Laskey", "bbbb0001", ABBEY)
    leaves = (leaf(), leaf(ABBEY, [(FACTS[1][0], "Piet Laskey")]))
    found = causes(item(1), [*taught_facts(), other], "Piet Laskey", leaves=leaves)
    assert found.cause == "sources conflict"
    assert ABBEY in found.because and f"{MILL}/text.md" in found.because
    assert f"{ABBEY}/qna.yaml:10:3" in found.advice and f"{MILL}/qna.yaml:1:3" in found.advice


def test_a_seed_example_against_the_held_out_question_is_a_conflict():
    seed = sample(FACTS[3][0], "250", "", branch="seed-1")
    leaves = (leaf(MILL, [(FACTS[3][0], "250")]),)
    found = causes(item(3), [*taught_facts(), seed], "250", leaves=leaves)
    assert found.cause == "sources conflict" and found.place == f"{MILL}/qna.yaml:10:3"


def test_right_after_phase_1_and_wrong_after_phase_2_is_forgotten():
    found = causes(item(5), taught_facts(), "oats", earlier="rye")
    assert found.cause == "learned then forgotten" and "phase 1" in found.because
    assert len(found.samples) == 3


def test_a_lucky_guess_of_what_nothing_teaches_was_never_learned():
    kept = [one for one in taught_facts() if "/ask-5" not in one.id]
    assert causes(item(5), kept, "oats", earlier="rye").cause == "not covered"
    assert causes(item(5), kept, "oats", earlier="rye", before="rye").cause == "learned then forgotten"


def test_forgetting_explains_a_mistake_that_the_wrong_sample_does_not_say():
    wrong = sample(FACTS[2][0], "1873", branch="ask-bad")
    assert causes(item(2), [*taught_facts(), wrong], "1650", earlier="1784").cause == "learned then forgotten"
    assert causes(item(2), [*taught_facts(), wrong], "1873", earlier="1784").cause == "wrong sample"


def test_an_answer_to_the_unanswerable_is_called_so():
    one = item(0, question="Who owns Ostrey Mill today?", gold="I do not know.", unanswerable=True)
    found = causes(one, taught_facts(), "Janna Wickel")
    assert found.cause == "answered though unanswerable" and "Janna Wickel" in found.because


def test_skills_are_covered_by_their_leaf():
    one = item(0, id=f"{NOTE}/eval/1", leaf=NOTE, question="Shorten: rain at noon", gold="noon: rain")
    assert causes(one, taught_facts(), "rain").cause == "not covered"
    practice = [sample(f"Shorten: {what} at dusk", f"dusk: {what}", "", NOTE, f"mix-{what}") for what in ("fog", "ice")]
    assert causes(one, practice, "rain").cause == "not learned"
    wrong = sample("Shorten: rain at noon", "rain then", "", NOTE, "mix-bad")
    assert causes(one, [*practice, wrong], "rain then").cause == "wrong sample"


def test_right_unscored_and_general_items_are_not_diagnosed():
    items = [item(0), item(1), item(2, id="general/birds/1", leaf="general/birds")]
    scores = {"base": [], "phase 2": [score(items[0], "larch"), score(items[1], "", value=0.0), score(items[2], "x")]}
    scores["phase 2"][1] = scores["phase 2"][1].model_copy(update={"value": None, "note": "not answered"})
    assert diagnose(items, Tries.of(scores, "base", "phase 2"), Taught(taught_facts())) == []


def test_other_parts_of_a_sentence_and_longer_answers_are_no_contradiction():
    index = WordIndex([one.question for one in taught_facts()])
    assert agrees("It is made of larch.", "larch") and not agrees("oak", "larch") and not agrees("1784", "1873")
    assert asks_same(index, FACTS[0][0], "What is the water wheel of Ostrey Mill made of, please?")
    assert not asks_same(index, "How wide is the loft of Ostrey Mill?", "How wide is the weir of Ostrey Mill?")
    extra = [
        sample("What was raised in 1784 at Ostrey Mill?", "the weir", branch="part"),
        sample(FACTS[2][0], "It was raised in 1784, after the flood.", branch="longer"),
    ]
    assert causes(item(2), [*taught_facts(), *extra], "1650").cause == "not learned"


def test_diagnoses_do_not_depend_on_the_order_of_samples_or_items():
    samples = [*taught_facts(), sample(FACTS[2][0], "1873", branch="ask-bad")]
    items = [item(number) for number in range(6)]
    scores = {"base": [], "phase 2": [score(one, "?") for one in items]}
    tries = Tries.of(scores, "base", "phase 2")
    first = diagnose(items, tries, Taught(sorted(samples, key=lambda one: one.id), chunks=CHUNKS))
    again = diagnose(items[::-1], tries, Taught(sorted(samples, key=lambda one: one.id), chunks=CHUNKS))
    assert first == again and [one.cause for one in first].count("wrong sample") == 1


def test_search_ranks_by_share_then_by_word_pairs():
    index = WordIndex(["red lamp over the door", "door lamp red", "the green lamp", "a wooden chair"])
    hits = index.nearest("the red lamp over a door")
    assert [hit.number for hit in hits] == [0, 1, 2]
    assert hits[0].share == pytest.approx(1.0) == hits[1].share > hits[2].share
    assert index.nearest("zebra") == [] and WordIndex([]).nearest("lamp") == []
    assert stems("Construction of E46 began") == {"constr", "e46", "began"}


def test_forty_leaves_of_five_thousand_samples_are_searched_in_seconds():
    draw = random.Random(3)
    vocabulary = [
        f"{a}{b}{c}" for a in "bdfgklmn" for b in ("ola", "iru", "eno", "asi") for c in ("t", "s", "rk", "nd")
    ]
    names = [f"{draw.choice(vocabulary)} {draw.choice(vocabulary)}" for _ in range(40)]
    samples = [
        sample(
            f"What about part {n}, the {draw.choice(vocabulary)} {draw.choice(vocabulary)} of {names[n % 40]}?",
            f"{draw.choice(vocabulary)} {n}",
            "",
            f"knowledge/leaf{n % 40}",
            f"q{n}",
        )
        for n in range(10_000)  # a twentieth of it; both the index and the queries are linear in the samples
    ]
    chosen = draw.sample(samples, 50)
    items = [
        item(0, id=one.id, leaf=one.leaf, question=one.question, gold=one.answer, cluster=one.id) for one in chosen
    ]
    start = time.process_time()
    taught = Taught(samples)
    found = diagnose(items, Tries.of({"phase 2": [score(one, "?") for one in items]}, "base", "phase 2"), taught)
    spent = time.process_time() - start
    assert [one.cause for one in found] == ["not learned"] * 50
    assert all(any(name == one.item for name in one.samples) for one in found)
    assert all(covers(one, items[number], taught) for number, one in enumerate(chosen))
    assert spent < 60  # processor time, many times what it takes: only a search of another order fails

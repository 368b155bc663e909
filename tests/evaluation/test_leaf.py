"""Likelihoods and answers against transformers, option by option, without batches or padding."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import Item
from ilab.evaluation import asking
from ilab.evaluation.asking import Asking, prompt
from ilab.evaluation.leaf import score_items
from ilab.models.likelihood import Likelihood
from ilab.models.renderer import Renderer


def item(number: int, question: str, gold: str, *options: str, context: str | None = None) -> Item:
    return Item(
        id=f"knowledge/a/eval/{number}",
        leaf="knowledge/a",
        split="test",
        kind="mcq" if options else "exact",
        question=question,
        context=context,
        options=options,
        gold=gold,
        cluster=str(number),
    )


ITEMS = [
    item(1, "How many locks has the canal?", "14", "14", "37", "a very long answer of many words", "x"),
    item(2, "What?", "red", "red", "red lamp", "green"),
    item(3, "Größe 東京 🙂?", "café", "café", "", "lamp = red; count = 37. lamp = red; count = 37."),
    item(4, "What does the note say?", "lamp", context="Note: lamp=red; count=37."),
    item(5, "How many locks?", "14"),
]


@pytest.fixture
def site(tmp_path: Path) -> Any:
    memo = Memo(tmp_path / "memo")
    yield SimpleNamespace(emit=Bus().for_step("evaluate"), stopping=lambda: False, memo=lambda name: memo, scores=memo)
    memo.close()


def ask(batch: int | Literal["auto"] = "auto", **passages: str) -> Asking:
    return Asking("cpu", 1, batch, {f"knowledge/a/eval/{number[1:]}": text for number, text in passages.items()})


def reference(folder: Path, one: Item, option: str) -> float:
    """The summed log-probability of ``option`` from the model's own logits over the one sequence."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    renderer = Renderer.load(folder)
    context, tail = renderer.prompt_ids(prompt(one)), renderer.encode_text(option)
    with torch.no_grad():
        logits = model(torch.tensor([context + tail])).logits[0]
    probabilities = torch.log_softmax(logits.double(), -1)
    return sum(probabilities[len(context) - 1 + place, token].item() for place, token in enumerate(tail))


@pytest.mark.parametrize("batch", [1, 2, "auto"])
def test_likelihoods_are_those_of_the_model_alone(tiny_model: Path, batch: Any, site: Any) -> None:
    scores = score_items("m", tiny_model, ITEMS, ask(batch), site)
    assert [score.item for score in scores] == [one.id for one in ITEMS]
    for one, score in zip(ITEMS[:3], scores, strict=False):
        expected = [reference(tiny_model, one, option) for option in one.options]
        assert score.likelihoods == pytest.approx(expected, abs=1e-4)
        rates = [value / max(len(option.encode()), 1) for value, option in zip(expected, one.options, strict=True)]
        assert score.answer == one.options[rates.index(max(rates))]
        assert score.value == float(score.answer == one.gold)


def test_answers_are_those_of_transformers_generate(tiny_model: Path, site: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    renderer = Renderer.load(tiny_model)
    scores = score_items("m", tiny_model, ITEMS, ask(), site)
    for one, score in zip(ITEMS[3:], scores[3:], strict=True):
        ids = renderer.prompt_ids(prompt(one))
        limit = len(renderer.encode_text(one.gold)) + asking.ANSWER_TOKENS
        out = model.generate(
            torch.tensor([ids]),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=list(renderer.stop_ids),
            pad_token_id=0,
        )
        tail = [token for token in out[0, len(ids) :].tolist() if token not in renderer.stop_ids]
        assert score.answer == " ".join(renderer.decode(tail).split())
        assert score.value in (0.0, 1.0)


def test_the_right_answer_counts_and_white_space_does_not(
    tiny_model: Path, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = score_items("m", tiny_model, ITEMS[3:4], ask(), site)[0].answer
    assert said
    renderer = Renderer.load(tiny_model)
    limit = len(renderer.encode_text(ITEMS[3].gold)) + asking.ANSWER_TOKENS
    for gold, value in (("  " + said.replace(" ", "\n ") + "\n", 1.0), (said + "!", 0.0)):
        # The limit depends on the gold's length; held where it was, so that the model says the same again.
        monkeypatch.setattr(asking, "ANSWER_TOKENS", limit - len(renderer.encode_text(gold)))
        scored = score_items("m", tiny_model, [ITEMS[3].model_copy(update={"gold": gold})], ask(), site)[0]
        assert (scored.answer, scored.value) == (said, value)


def test_no_items_and_a_stop(tiny_model: Path, site: Any) -> None:
    assert score_items("m", tiny_model, [], ask(), site) == []
    site.stopping = lambda: True
    assert score_items("m", tiny_model, ITEMS, ask(), site) == []
    answers = iter([False, True, True])
    site.stopping = lambda: next(answers)
    assert len(score_items("m", tiny_model, ITEMS, ask(), site)) == 1


def test_a_question_is_asked_once_whatever_model_and_item_are_called(tiny_model: Path, site: Any) -> None:
    first = score_items("m", tiny_model, ITEMS[:4], ask(), site)
    assert site.scores.writes == 4
    again = [one.model_copy(update={"id": f"b/{one.id}", "leaf": "b", "cluster": "c"}) for one in reversed(ITEMS)]
    second = score_items("n", tiny_model, again, ask(1), site)
    assert site.scores.writes == 5
    for one, other in zip(first, reversed(second), strict=False):
        assert other == one.model_copy(update={"item": f"b/{one.item}", "leaf": "b", "cluster": "c", "model": "n"})
    other = ITEMS[0].model_copy(update={"question": "How many locks has the old canal?"})
    score_items("m", tiny_model, [other], ask(), site)
    score_items("m", tiny_model, [other], ask(_1="The old canal has 14 locks."), site)
    assert site.scores.writes == 7  # an edited question and another passage are other questions


def test_other_numbers_are_another_model(tiny_model: Path, tmp_path: Path, site: Any) -> None:
    score_items("m", tiny_model, ITEMS[:1], ask(), site)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    folder = shutil.copytree(tiny_model, tmp_path / "half")
    model.to(torch.bfloat16).save_pretrained(folder)
    half = score_items("m", folder, ITEMS[:1], ask(), site)
    template = shutil.copytree(tiny_model, tmp_path / "template")
    (template / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    score_items("m", template, ITEMS[:1], ask(), site)
    assert site.scores.writes == 3
    assert half[0].likelihoods != score_items("m", tiny_model, ITEMS[:1], ask(), site)[0].likelihoods


def test_an_item_that_does_not_fit_is_not_scored_and_stops_nobody(tiny_model: Path, site: Any) -> None:
    long = [
        item(6, "long " * 300, "a", "a", "b"),
        item(7, "What?", "a", "a", "long " * 300),
        item(8, "long " * 300, "a"),
    ]
    scores = score_items("m", tiny_model, [*long, ITEMS[0]], ask(), site)
    assert [score.value is None for score in scores] == [True, True, True, False]
    assert all("does not fit the model" in score.note for score in scores[:3])


def test_open_book_margin_brier_and_bits(tiny_model: Path, site: Any) -> None:
    text = "The canal has 14 locks. " * 3
    score = score_items("m", tiny_model, ITEMS[:1], ask(_1=text), site)[0]
    one = ITEMS[0]
    sums = [reference(tiny_model, one, option) for option in one.options]
    sizes = [len(option.encode()) for option in one.options]
    rates = [total / size for total, size in zip(sums, sizes, strict=True)]
    assert score.metrics["margin"] == pytest.approx(rates[0] - max(rates[1:]), abs=1e-4)
    assert score.metrics["bits"] == pytest.approx(-sums[0] / sizes[0] / math.log(2), abs=1e-4)
    shares = torch.softmax(torch.tensor(rates) * (sum(sizes) / len(sizes)), 0)
    truth = torch.tensor([1.0, 0, 0, 0])
    assert score.metrics["brier"] == pytest.approx(((shares - truth) ** 2).sum().item() / 2, abs=1e-4)
    read = one.model_copy(update={"context": text})
    opened = [reference(tiny_model, read, option) / size for option, size in zip(one.options, sizes, strict=True)]
    assert score.metrics["open"] == float(opened.index(max(opened)) == 0)
    assert "open" not in score_items("m", tiny_model, ITEMS[:1], ask(), site)[0].metrics


def test_written_answers_have_their_metrics(tiny_model: Path, site: Any) -> None:
    score = score_items("m", tiny_model, ITEMS[4:], ask(_5="There are 14 locks."), site)[0]
    assert score.metrics["bits"] == pytest.approx(-reference(tiny_model, ITEMS[4], "14") / math.log(2) / 2, abs=1e-4)
    assert set(score.metrics) == {"bits", "declined", "f1", "open"}
    read = ITEMS[4].model_copy(update={"context": "There are 14 locks."})
    alone = score_items("m", tiny_model, [read], ask(), site)[0]
    assert score.metrics["open"] == alone.value and "open" not in alone.metrics


def test_a_passage_is_cut_to_the_window(local: Any) -> None:
    text = (
        "".join(f"Sentence {at} tells of nothing. " for at in range(40)) + "The canal has 14 locks. And more text. " * 9
    )
    read = asking.fitting(local, ITEMS[0], text, 20)
    assert "canal has 14 locks" in read and len(read) < len(text)
    ids = local.renderer.prompt_ids(prompt(ITEMS[0], read))
    assert local.context_length - 120 < len(ids) <= local.context_length - 20
    assert asking.fitting(local, ITEMS[0], text, 240) == "" == asking.fitting(local, ITEMS[0], "", 1)
    assert asking.fitting(local, ITEMS[0], "Short.", 20) == "Short."


def test_who_declines_is_right_only_where_nothing_can_be_known() -> None:
    open_ended = ITEMS[4].model_copy(update={"kind": "free"})
    unanswerable = open_ended.model_copy(update={"unanswerable": True, "gold": "The text does not say."})
    assert asking.value_of(unanswerable, "I do not know.") == 1.0
    assert asking.value_of(unanswerable, "14 locks.") == asking.value_of(open_ended, "I do not know, 14") == 0.0
    assert asking.value_of(open_ended, "14") == asking.value_of(ITEMS[4], " 14\n") == 1.0
    silent = open_ended.model_copy(update={"gold": "Nobody knows; the text does not say."})
    assert asking.value_of(silent, "The text does not say.") > 0.5


@pytest.mark.parametrize(("better", "value"), [(True, 1.0), (False, 0.0)])
def test_a_model_that_knows_the_gold(better: bool, value: float) -> None:
    for one in ITEMS[:3]:
        found = [
            Likelihood(
                -1e-3 * len(option.encode()) if (option == one.gold) == better else -9.0 * max(len(option), 1), True, 1
            )
            for option in one.options
        ]
        assert asking.choice(one, found).value == value
    tie = [Likelihood(-2.0, False, 1), Likelihood(-2.0, False, 1)]
    assert asking.choice(item(9, "Which?", "ab", "ab", "cd"), tie).value == 1.0  # of equals the first
    assert asking.choice(item(9, "Which?", "cd", "ab", "cd"), tie).value == 0.0

"""Likelihoods and answers against transformers, option by option, without batches or padding."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ilab.core.events import Bus
from ilab.data import Item
from ilab.evaluation import leaf
from ilab.evaluation.leaf import prompt, score_items
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


def site(stopping: bool = False) -> Any:
    where = SimpleNamespace(threads=1)
    return SimpleNamespace(where=where, emit=Bus().for_step("evaluate"), stopping=lambda: stopping)


def reference(folder: Path, one: Item, option: str) -> float:
    """The summed log-probability of ``option`` from the model's own logits over the one sequence."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    renderer = Renderer.load(folder)
    context, tail = renderer.prompt_ids(prompt(one)), renderer.encode_text(option)
    with torch.no_grad():
        logits = model(torch.tensor([context + tail])).logits[0]
    probabilities = torch.log_softmax(logits.double(), -1)
    return sum(probabilities[len(context) - 1 + place, token].item() for place, token in enumerate(tail))


@pytest.mark.parametrize("batch", [1, 40, 100_000])
def test_likelihoods_are_those_of_the_model_alone(
    tiny_model: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaf, "BATCH_TOKENS", batch)
    scores = score_items("m", tiny_model, ITEMS, "cpu", site())
    assert [score.item for score in scores] == [one.id for one in ITEMS]
    for one, score in zip(ITEMS[:3], scores, strict=False):
        expected = [reference(tiny_model, one, option) for option in one.options]
        assert score.likelihoods == pytest.approx(expected, abs=1e-4)
        rates = [value / max(len(option.encode()), 1) for value, option in zip(expected, one.options, strict=True)]
        assert score.answer == one.options[rates.index(max(rates))]
        assert score.value == float(score.answer == one.gold)


def test_answers_are_those_of_transformers_generate(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    renderer = Renderer.load(tiny_model)
    scores = score_items("m", tiny_model, ITEMS, "cpu", site())
    for one, score in zip(ITEMS[3:], scores[3:], strict=True):
        ids = renderer.prompt_ids(prompt(one))
        limit = len(renderer.encode_text(one.gold)) + leaf.ANSWER_TOKENS
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


def test_the_right_answer_counts_and_white_space_does_not(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = score_items("m", tiny_model, ITEMS[3:4], "cpu", site())[0].answer
    assert said
    renderer = Renderer.load(tiny_model)
    limit = len(renderer.encode_text(ITEMS[3].gold)) + leaf.ANSWER_TOKENS
    for gold, value in (("  " + said.replace(" ", "\n ") + "\n", 1.0), (said + "!", 0.0)):
        # The limit depends on the gold's length; held where it was, so that the model says the same again.
        monkeypatch.setattr(leaf, "ANSWER_TOKENS", limit - len(renderer.encode_text(gold)))
        scored = score_items("m", tiny_model, [ITEMS[3].model_copy(update={"gold": gold})], "cpu", site())[0]
        assert (scored.answer, scored.value) == (said, value)


def test_no_items_and_a_stop(tiny_model: Path) -> None:
    assert score_items("m", tiny_model, [], "cpu", site()) == []
    stopped = score_items("m", tiny_model, ITEMS, "cpu", site(stopping=True))
    assert [score.kind for score in stopped] == ["mcq"] * 3

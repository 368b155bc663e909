"""How a model is asked a held-out question, and what is measured of the answer.

    mcq           the likelihood of each option as the whole answer; the option of highest log-probability per byte
                  of its text is the model's choice (no letters, no shots, the options are shown to nobody: a tiny model
                  cannot read letters)
    exact         the greedy answer, compared after collapsing white space
    free          token F1 of the greedy answer against the reference
    unanswerable  1 where the greedy answer declines (:mod:`ilab.evaluation.declines`), else 0

Every question is asked *closed book*: that is the score's ``value``. Where it has a passage it is asked again with the
passage in the prompt, ``open``: the gap between the two is what reading still adds to what was learnt. Further metrics:

    margin   mcq: log-probability per byte (nats) of the right option less that of the best wrong one
    brier    mcq: half the squared distance between the options' probabilities and the truth (0 best, 1 worst; Brier
             1950). Probabilities are of the options at their mean length, so that they rank as the choice does
    bits     bits per byte of the right answer, given the question alone
    f1       exact, free: token F1;    declined   1 where the answer says that it does not know

Prompts are rendered by the model's own chat template, exactly as in training and serving.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ilab.data import Item, Message
from ilab.evaluation.answers import plain, preferred, token_f1
from ilab.evaluation.declines import declines
from ilab.evaluation.passages import part_about
from ilab.models.chat import prompt_text
from ilab.models.likelihood import Likelihood, Pair
from ilab.models.local import ContextError, DivergedError
from ilab.models.renderer import Renderer

ANSWER_TOKENS = 64  # a greedy answer may be this much longer than the reference
LEAST = 80  # characters of a passage that are worth reading
DIVERGED = "the model computes no numbers"


class Model(Protocol):
    """Who is asked: a model in this process, or a served one. All lengths are in tokens."""

    @property
    def renderer(self) -> Renderer: ...
    @property
    def context_length(self) -> int: ...
    def room(self, prompt: int, max_tokens: int | None) -> int: ...
    def write(self, prompt_ids: Sequence[int], max_tokens: int) -> str: ...


@dataclass(frozen=True)
class Asking:
    """Where and how items are asked. ``passages``: item id to text; without any, questions are closed book only."""

    device: str
    threads: int
    batch: int | Literal["auto"]
    passages: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """What was found of one question, whoever it belongs to. ``value`` None: ``note`` says why."""

    value: float | None
    answer: str | None = None
    likelihoods: tuple[float, ...] = ()
    metrics: Mapping[str, float] | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        metrics = {name: round(value, 6) for name, value in sorted((self.metrics or {}).items())}
        return {
            "value": self.value,
            "answer": self.answer,
            "likelihoods": [round(value, 6) for value in self.likelihoods],
            "metrics": metrics,
            "note": self.note,
        }


def prompt(item: Item, passage: str | None = None) -> list[Message]:
    shown = [
        Message(role=role, content=text)
        for question, answer in item.shots or ()
        for role, text in (("user", question), ("assistant", answer))
    ]
    return [*shown, Message(role="user", content=prompt_text(item.question, passage or item.context))]


def option_pairs(model: Model, item: Item, passage: str) -> list[Pair]:
    """The options behind the question, then, where there is a passage, behind the question with it.

    Raises ``ContextError`` where the question or an option does not fit the model's window.
    """
    options = [tuple(model.renderer.encode_text(option)) for option in item.options]
    longest = max(map(len, options))
    context = tuple(model.renderer.prompt_ids(prompt(item)))
    model.room(len(context) + longest, None)
    pairs = [Pair(context, option) for option in options]
    read = fitting(model, item, passage, longest)
    if read:
        context = tuple(model.renderer.prompt_ids(prompt(item, read)))
        pairs += [Pair(context, option) for option in options]
    return pairs


def choice(item: Item, found: Sequence[Likelihood]) -> Measured:
    """What the likelihoods of :func:`option_pairs` say of a multiple-choice item."""
    if not all(one.known for one in found):
        return Measured(None, note=DIVERGED)
    sums = [one.total for one in found[: len(item.options)]]
    chosen = item.options[preferred(sums, item.options)]
    metrics = _against_gold(item, sums)
    if len(found) > len(sums):
        opened = item.options[preferred([one.total for one in found[len(sums) :]], item.options)]
        metrics["open"] = float(opened == item.gold)
    return Measured(float(chosen == item.gold), chosen, tuple(sums), metrics)


def _against_gold(item: Item, sums: Sequence[float]) -> dict[str, float]:
    """``margin``, ``brier`` and ``bits`` of a choice. Nothing where no option is right, or no other is wrong."""
    right = [option == item.gold for option in item.options]
    if all(right) or not any(right):
        return {}
    sizes = [max(len(option.encode()), 1) for option in item.options]
    rates = [total / size for total, size in zip(sums, sizes, strict=True)]
    gold = right.index(True)
    wrong = max(rate for rate, is_right in zip(rates, right, strict=True) if not is_right)
    mean = sum(sizes) / len(sizes)
    brier = _brier([rate * mean for rate in rates], gold)
    return {"margin": rates[gold] - wrong, "bits": -rates[gold] / math.log(2), "brier": brier}


def gold_pair(model: Model, item: Item) -> Pair | None:
    """The right answer behind the question; ``None`` where there is none to be known or no room for it."""
    context, gold = tuple(model.renderer.prompt_ids(prompt(item))), tuple(model.renderer.encode_text(item.gold))
    fits = len(context) + len(gold) <= model.context_length
    return Pair(context, gold) if fits and gold and not item.unanswerable else None


def written(model: Model, item: Item, passage: str, gold: Likelihood | None) -> Measured:
    """What the model writes for an item that has no options; ``gold`` is the likelihood of the right answer."""
    try:
        answer = _answer(model, item, None)
        read = fitting(model, item, passage, _limit(model, item))
        opened = _answer(model, item, read) if read else None
    except DivergedError:
        return Measured(None, note=DIVERGED)
    metrics = {"declined": float(declines(answer))}
    if not item.unanswerable:
        metrics["f1"] = token_f1(answer, item.gold)
    if gold is not None and gold.known:
        metrics["bits"] = -gold.total / math.log(2) / len(item.gold.encode())
    if opened is not None:
        metrics["open"] = value_of(item, opened)
    return Measured(value_of(item, answer), plain(answer), metrics=metrics)


def value_of(item: Item, answer: str) -> float:
    """The score in 0..1 of a written answer. One that declines is wrong, unless the question has no answer."""
    if item.unanswerable:
        return float(declines(answer))
    if declines(answer) and not declines(item.gold):
        return 0.0
    return float(plain(answer) == plain(item.gold)) if item.kind == "exact" else token_f1(answer, item.gold)


def fitting(model: Model, item: Item, passage: str, reserve: int) -> str:
    """As much of ``passage`` around what is asked as the window holds beside ``reserve`` tokens; empty: no room."""
    size = len(passage)
    while size >= LEAST or size == len(passage) > 0:
        read = part_about(passage, item.question, size)
        over = len(model.renderer.prompt_ids(prompt(item, read))) + reserve - model.context_length
        if over <= 0:
            return read
        size = min(int(size * 0.9), size - over)  # a token is one character at least
    return ""


def _limit(model: Model, item: Item) -> int:
    return len(model.renderer.encode_text(item.gold)) + ANSWER_TOKENS


def _answer(model: Model, item: Item, passage: str | None) -> str:
    """The greedy answer. Raises ``ContextError`` where the question fills the window, ``DivergedError`` for NaN."""
    return model.write(model.renderer.prompt_ids(prompt(item, passage)), _limit(model, item))


def _brier(logs: Iterable[float], gold: int) -> float:
    """Half the squared distance of the softmax of ``logs`` from the truth."""
    values = list(logs)
    weights = [math.exp(value - max(values)) for value in values]
    shares = [weight / sum(weights) for weight in weights]
    return sum((share - (at == gold)) ** 2 for at, share in enumerate(shares)) / 2


def too_long(error: ContextError) -> Measured:
    return Measured(None, note=f"it does not fit the model: {error.message}")

"""Leaf evaluation: does the model know what the leaf teaches?

    mcq    the likelihood of each option as the whole answer; the option with the highest log-probability per byte of
           its text is the model's choice (closed book, no shots, no letters: a tiny model cannot read letters)
    exact  the greedy answer, compared after collapsing white space
    free   token F1 of the greedy answer against the reference

Prompts are rendered by the model's own chat template, exactly as in training and serving. Scores are per item; means
and intervals are the business of ``compare``. The per-byte rule was fixed before anything was measured, because the
sum of log-probabilities favours short options (evaluation by likelihood: Brown et al. 2020, section 2.4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ilab.core.step import Site
from ilab.data import Item, Message, Score
from ilab.evaluation.answers import plain, token_f1
from ilab.models.chat import prompt_text
from ilab.models.likelihood import Pair, score_all
from ilab.models.likelihood_local import LocalLikelihoods
from ilab.models.local import DivergedError, LocalModel

ANSWER_TOKENS = 64  # a greedy answer may be this much longer than the reference
SCORING = 1  # raised together with the version of the step `evaluate`: scores of an earlier one are not used again


def score_items(name: str, folder: Path, items: Sequence[Item], device: str, site: Site) -> list[Score]:
    """Score every item with the model in ``folder`` under the name ``name``, in the order of ``items``."""
    model = LocalModel.load(folder, device, site.where.threads)
    choices = [(index, item) for index, item in enumerate(items) if item.kind == "mcq"]
    scores = dict(_score_choices(name, model, choices))
    site.emit.progress(len(scores), len(items), "items", note=name)
    for index, item in enumerate(items):
        if item.kind != "mcq" and not site.stopping():
            scores[index] = _score_answer(name, model, item)
            site.emit.progress(len(scores), len(items), "items", note=f"{name}: {scores[index].answer}")
    return [scores[index] for index in range(len(items)) if index in scores]


def prompt(item: Item) -> list[Message]:
    return [Message(role="user", content=prompt_text(item.question, item.context))]


def _score_choices(name: str, model: LocalModel, items: Sequence[tuple[int, Item]]) -> Iterator[tuple[int, Score]]:
    pairs = []
    for _, item in items:
        context = tuple(model.renderer.prompt_ids(prompt(item)))
        pairs += [Pair(context, tuple(model.renderer.encode_text(text))) for text in item.options]
    values = iter(score_all(LocalLikelihoods(model), pairs))
    for index, item in items:
        sums = [next(values).total for _ in item.options]
        if not all(map(math.isfinite, sums)):
            yield index, _unscored(name, item)
            continue
        rates = [value / max(len(text.encode()), 1) for value, text in zip(sums, item.options, strict=True)]
        chosen = item.options[max(range(len(rates)), key=lambda option: (rates[option], -option))]
        yield index, _score(name, item, float(chosen == item.gold), chosen, tuple(round(v, 6) for v in sums))


def _score_answer(name: str, model: LocalModel, item: Item) -> Score:
    limit = len(model.renderer.encode_text(item.gold)) + ANSWER_TOKENS
    prompt_ids, stops = model.renderer.prompt_ids(prompt(item)), model.renderer.stop_ids
    try:
        ids = list(model.generate(prompt_ids, max_tokens=limit, stop_ids=stops))
    except DivergedError:
        return _unscored(name, item)
    answer = model.renderer.decode([token for token in ids if token not in stops])
    if item.kind == "exact":
        return _score(name, item, float(plain(answer) == plain(item.gold)), plain(answer))
    return _score(name, item, token_f1(answer, item.gold), plain(answer))


def _unscored(name: str, item: Item) -> Score:
    """A model whose training diverged is not wrong about an item: it was not measured, so it cannot be chosen."""
    score = _score(name, item, 0.0, "")
    return score.model_copy(update={"value": None, "answer": None, "note": "the model computes no numbers"})


def _score(name: str, item: Item, value: float, answer: str, likelihoods: tuple[float, ...] = ()) -> Score:
    return Score(
        item=item.id,
        leaf=item.leaf,
        model=name,
        kind=item.kind,
        cluster=item.cluster,
        value=value,
        answer=answer,
        likelihoods=likelihoods,
    )

"""Leaf evaluation: does the model know what the leaf teaches?

:mod:`ilab.evaluation.asking` says how an item is asked and what counts. Here the items meet a model: those that were
asked before are taken from the memo ``scores``, the others are asked, multiple choice in batches, the rest one by one,
and every result is kept as soon as it is there. So a process that is killed loses the batch under way and nothing else,
and a question is asked once of the same weights, whatever model and item are called. A result's key holds how it is
scored, the digest of the model's folder (weights, tokenizer, template, precision), the question's content and its
passage. Scores are per item; means and intervals are the business of ``compare``.

Results depend neither on batches nor on what the memo held: values are rounded to six decimals, and the choice of an
option is made from likelihoods that agree within 1e-4 nats (see :mod:`ilab.models.likelihood`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.core.step import Site, fingerprint
from ilab.core.store import digest_tree
from ilab.data import Item, Score
from ilab.evaluation.asking import Asking, Measured, Model, choice, gold_pair, option_pairs, too_long, written
from ilab.models.likelihood import Likelihood, Likelihoods, Pair
from ilab.models.likelihood_local import LocalLikelihoods
from ilab.models.local import ContextError, LocalModel

SCORING = 2  # raised together with the version of the step `evaluate`: scores of an earlier one are not used again
ASKED = ("kind", "question", "context", "options", "gold", "unanswerable")  # what makes two items the same question
CHOICES = 64  # items of multiple choice that are scored together, with and without their passages
WRITTEN = 16  # written answers whose right answers are scored together

Found = dict[str, Any]  # a Measured as JSON
Asked = tuple[str, Item, str]  # a result's key, the item, its passage


@dataclass(frozen=True)
class Source:
    """A model to ask: what it is known by in the memo, and how it is opened, when the first answer is not known."""

    identity: str
    open: Callable[[], tuple[Model, Likelihoods]]


def score_items(name: str, folder: Path, items: Sequence[Item], asking: Asking, site: Site) -> list[Score]:
    """Score every item with the model in ``folder`` under the name ``name``, in the order of ``items``.

    Where the run is being stopped, the scores that there are: the others are missing.
    """

    def loaded() -> tuple[Model, Likelihoods]:
        model = LocalModel.load(folder, asking.device, asking.threads)
        return model, LocalLikelihoods(model, asking.batch)

    return score_with(name, Source(digest_tree(folder), loaded), items, asking.passages, site)


def score_with(name: str, source: Source, items: Sequence[Item], texts: Mapping[str, str], site: Site) -> list[Score]:
    """:func:`score_items` with the model of ``source``; ``texts`` are the items' passages by id."""
    memo = site.memo("scores")
    passages = [texts.get(item.id, "") for item in items]
    keys = [item_key(source.identity, item, passage) for item, passage in zip(items, passages, strict=True)]
    found: dict[str, Found] = {key: known for key in dict.fromkeys(keys) if (known := memo.get(key)) is not None}
    missing = {
        key: (item, passage) for key, item, passage in zip(keys, items, passages, strict=True) if key not in found
    }
    site.emit.progress(len(found), len(found) + len(missing), "items", note=name)
    if missing:
        total = len(found) + len(missing)
        for key, measured in _measure(*source.open(), missing, site):
            found[key] = measured.as_json()
            memo.put(key, found[key])
            site.emit.progress(len(found), total, "items", note=f"{name}: {found[key]['answer']}")
    return [_score(name, item, found[key]) for item, key in zip(items, keys, strict=True) if key in found]


def item_key(digest: str, item: Item, passage: str) -> str:
    """What one result stands under: ``digest`` is that of the model's folder, or what else it is known by."""
    content = {field: value for field, value in item.model_dump(mode="json").items() if field in ASKED}
    if item.shots:
        content["shots"] = item.shots
    return fingerprint("score", SCORING, digest, content, passage)


def _measure(
    model: Model, likelihoods: Likelihoods, missing: Mapping[str, tuple[Item, str]], site: Site
) -> Iterator[tuple[str, Measured]]:
    asked = [(key, item, passage) for key, (item, passage) in missing.items()]
    choices = [one for one in asked if one[1].kind == "mcq"]
    others = [one for one in asked if one[1].kind != "mcq"]
    for ask, some, size in ((_choices, choices, CHOICES), (_answers, others, WRITTEN)):
        for start in range(0, len(some), size):
            if site.stopping():
                return
            yield from ask(model, likelihoods, some[start : start + size], site)


def _choices(
    model: Model, likelihoods: Likelihoods, asked: Sequence[Asked], site: Site
) -> Iterator[tuple[str, Measured]]:
    """Multiple choice, each item as soon as all its options are scored."""
    pairs: list[Pair] = []
    owners: list[tuple[int, int]] = []  # for each pair its item and its place among the item's pairs
    found: list[dict[int, Likelihood]] = [{} for _ in asked]
    sizes = [0] * len(asked)
    for at, (key, item, passage) in enumerate(asked):
        try:
            own = option_pairs(model, item, passage)
        except ContextError as error:
            yield key, too_long(error)
            continue
        pairs += own
        owners += [(at, place) for place in range(len(own))]
        sizes[at] = len(own)
    for index, likelihood in likelihoods.score(pairs):
        at, place = owners[index]
        found[at][place] = likelihood
        if len(found[at]) == sizes[at]:
            yield asked[at][0], choice(asked[at][1], [found[at][place] for place in range(sizes[at])])
            if site.stopping():
                return


def _answers(
    model: Model, likelihoods: Likelihoods, asked: Sequence[Asked], site: Site
) -> Iterator[tuple[str, Measured]]:
    """Answers that the model writes, one by one."""
    golds = [(key, pair) for key, item, _ in asked if (pair := gold_pair(model, item)) is not None]
    known = {golds[index][0]: found for index, found in likelihoods.score([pair for _, pair in golds])}
    for key, item, passage in asked:
        try:
            yield key, written(model, item, passage, known.get(key))
        except ContextError as error:
            yield key, too_long(error)
        if site.stopping():
            return


def _score(name: str, item: Item, found: Found) -> Score:
    return Score(
        item=item.id, leaf=item.leaf, model=name, kind=item.kind, cluster=item.cluster,
        value=found["value"], answer=found["answer"], likelihoods=tuple(found["likelihoods"]),
        metrics=found["metrics"], note=found["note"],
    )  # fmt: skip

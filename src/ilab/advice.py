"""Tune, retrieve, both or neither? What the evaluation measured of it, leaf by leaf.

                    from memory           with passages
    base model      base                  retrieval
    tuned model     tuning                both

Every test item that was asked all four ways counts, and nothing else: the four columns are means over the same items,
their differences are paired, clustered and, over the leaves, adjusted (:mod:`ilab.evaluation.compare`). A way *helps*
where its difference from the base is above 0 at the level of the comparison; one is better than another where their own
difference is. So two that help may be told apart, or not, and that is said.

The passages are of one of two kinds. With ``eval_open_book`` a build asks each question beside the very passage that
it was made from: the most that retrieval could reach. :func:`measure` asks beside the passages that a search found,
which is what a chat would read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ilab.artifacts import Checkpoint
from ilab.core.step import Site
from ilab.data import Item, Score
from ilab.errors import InputError
from ilab.evaluation.compare import FEWEST_CLUSTERS, GENERAL, compare, kind_of
from ilab.evaluation.statistics import LEVEL
from ilab.inquiry import Results

Verdict = Literal["tuning", "retrieval", "both", "either", "neither", "inconclusive", "not measured"]
Passages = Literal["its own", "retrieved"]

BASE, TUNING, RETRIEVAL, BOTH = WAYS = ("base", "tuning", "retrieval", "both")
OPEN = "open"  # the metric of an answer given beside a passage
SMALL = 0.05  # an effect whose interval stays below this is none

SAID: Mapping[Verdict, str] = {
    "tuning": "tuning helped; passages beside the base model did less",
    "retrieval": "retrieval alone is enough: tuning added nothing that shows",
    "both": "both together are better than either alone",
    "either": "either alone helped, neither shows to be better; retrieval needs no training when a document changes",
    "neither": "neither helped by more than 5 points",
    "inconclusive": "the questions are too few, or the effects too small, to tell",
    "not measured": "no question was asked beside a passage",
}
OWN_CONTEXT = "the questions bring their own context, so there is nothing to look up"


def advise(results: Results, measured: Mapping[str, Sequence[Score]] | None = None) -> dict[str, Any]:
    """What is known of the last build's leaves, as JSON.

    ``measured`` are the scores of :func:`measure` by model; without them those of the final evaluation count. Keys:
    ``passages`` (``its own``, ``retrieved`` or null), ``level``, ``leaves`` and ``total``; of each ``leaf``, ``items``,
    ``n``, ``can_look_up``, ``ways`` ({way: {value, low, high}}), ``effects`` ({``tuning``, ``both over tuning``, …:
    {value, low, high, p, p_adjusted}}), ``advice``, ``because``. Raises InputError where the build has no final
    evaluation.
    """
    names = _models(results)
    scores = dict(measured or results.scores)
    items = _own(results)
    four = _ways(scores[names[0]], scores[names[1]])
    known = {score.item for score in four[BASE]}
    asked = [item for item in items if item.id in known]
    against = {way: compare({name: four[name] for name in (way, *_others(way))}, asked) for way in WAYS[:3]}
    plain = compare({name: scores[model] for name, model in zip(WAYS, names, strict=False)}, items)
    with_passage = {item.leaf for item in to_ask(results)}
    leaves = [_leaf(group, _named(against, group["name"]), group["name"] in with_passage) for group in plain["leaves"]]
    total = _leaf(plain["total"], {way: one["total"] for way, one in against.items()}, bool(with_passage))
    kind: Passages | None = "retrieved" if measured else "its own" if asked else None
    return {"passages": kind, "level": LEVEL, "leaves": leaves, "total": total}


def measure(results: Results, passages: Mapping[str, str], site: Site) -> dict[str, list[Score]]:
    """Ask base and tuned model the test items from memory and beside ``passages`` (by item id); scores by model.

    What was asked before of the same weights is not asked again. Raises InputError where the store no longer has one of
    the models.
    """
    record = results.of("select")
    if results.base is None or record is None:
        raise InputError("the store no longer has both models", where=str(results.store.root), hint="build: ilab run")
    from ilab.evaluation.asking import Asking
    from ilab.evaluation.leaf import score_items
    from ilab.models.device import pick_device

    folders = dict(zip(_models(results), (results.base, Checkpoint(results.store.contents(record)).model), strict=True))
    batch = site.where.evaluate.batch or "auto"
    asking = Asking(pick_device(site.where.device), site.where.threads, batch, passages)
    return {name: score_items(name, folder, _own(results), asking, site) for name, folder in folders.items()}


def to_ask(results: Results) -> list[Item]:
    """The test items that a passage can help with: a question that brings its own context is asked beside that."""
    return [item for item in _own(results) if item.context is None]


def _own(results: Results) -> list[Item]:
    """The test items of the taxonomy's leaves that have an answer."""
    own = [item for item in results.items if item.split == "test" and kind_of(item.leaf) != GENERAL]
    return [item for item in own if not item.unanswerable]


def _models(results: Results) -> tuple[str, str]:
    """The names of base and tuned model in the final evaluation."""
    if not results.comparison.get("total"):
        raise InputError("the last build was not evaluated", where=str(results.store.root), hint="evaluate: ilab run")
    return results.comparison["reference"], results.comparison["candidate"]


def _ways(base: Sequence[Score], tuned: Sequence[Score]) -> dict[str, list[Score]]:
    """The scores on those items that both models were asked beside a passage, by way."""
    both = {score.item for score in base if OPEN in score.metrics} & {s.item for s in tuned if OPEN in s.metrics}
    kept = [[score for score in scores if score.item in both] for scores in (base, tuned)]
    opened = [[one.model_copy(update={"value": one.metrics[OPEN]}) for one in scores] for scores in kept]
    return {BASE: kept[0], TUNING: kept[1], RETRIEVAL: opened[0], BOTH: opened[1]}


def _others(way: str) -> Sequence[str]:
    return WAYS[WAYS.index(way) + 1 :]


def _named(against: Mapping[str, Any], leaf: str) -> dict[str, Any]:
    """By reference the group of a leaf; empty where none of its items was asked beside a passage."""
    found = {way: next((one for one in told["leaves"] if one["name"] == leaf), None) for way, told in against.items()}
    return {way: group for way, group in found.items() if group}


def _leaf(plain: Mapping[str, Any], against: Mapping[str, Any], can_look_up: bool) -> dict[str, Any]:
    """One leaf's figures and what follows; ``plain`` are those of the questions asked from memory."""
    because = ""
    if not against or not against[BASE]["n"]:
        told = {"n": plain["n"], "ways": plain["models"], "effects": plain["deltas"], "advice": "not measured"}
    else:
        group = against[BASE]
        effects = {
            name if way == BASE else f"{name} over {way}": delta
            for way, one in against.items()
            for name, delta in one["deltas"].items()
        }
        advice = _advice(effects) if group["clusters"] >= FEWEST_CLUSTERS else "inconclusive"
        told = {"n": group["n"], "ways": group["models"], "effects": effects, "advice": advice}
        if advice == "inconclusive":
            because = f"{SAID[advice]}; about {group['needed']['items']:,} would show a change of "
            because += f"{group['needed']['change']:.0%}"
    because = because or (SAID[told["advice"]] if can_look_up else OWN_CONTEXT)
    facts = {"leaf": plain["name"], "items": plain["items"], "can_look_up": can_look_up}
    return {**facts, **told, "because": because}


def _advice(effects: Mapping[str, Mapping[str, Any]]) -> Verdict:
    def better(name: str, sign: int = 1) -> bool:
        one = effects[name]
        return bool(one["p_adjusted"] <= 1 - LEVEL and one["value"] * sign > 0)

    tuning, retrieval = better(TUNING), better(RETRIEVAL)
    if better(BOTH) and better(f"{BOTH} over {TUNING}") and better(f"{BOTH} over {RETRIEVAL}"):
        return "both"
    if tuning and retrieval:
        over = f"{RETRIEVAL} over {TUNING}"
        return "retrieval" if better(over) else "tuning" if better(over, -1) else "either"
    if tuning or retrieval:
        return "tuning" if tuning else "retrieval"
    if better(BOTH):
        return "both"
    none = all(one["high"] is not None and one["high"] < SMALL for name, one in effects.items() if " " not in name)
    return "neither" if none else "inconclusive"

"""The data card as the report shows it: rows, shares and bars. What a card does not have is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilab.evaluation import charts

JSON = Mapping[str, Any]

TYPES = 12  # of one kind that are shown
FILTERS = 400  # rows of the table of filters by leaf
PAIRS = 20  # pairs of leaves that have samples in common


def card_view(name: str, card: JSON) -> dict[str, Any]:
    """Everything of one card that the template prints."""
    blocks = {key: value for key, value in card.get("blocks", {}).items() if isinstance(value, Mapping)}
    columns = list(dict.fromkeys(column for counts in blocks.values() for column in counts))
    filters = _filters(card)
    across = card.get("across_leaves", {})
    return {
        "name": name,
        "flow": card.get("flow"),
        "leaves": [_leaf(leaf, counts) for leaf, counts in sorted(card.get("leaves", {}).items())],
        "blocks": blocks,
        "columns": columns,
        "filters": filters[:FILTERS],
        "filter_count": len(filters),
        "lengths": _lengths(card.get("lengths", {})),
        "types": {title: _shares(counts, TYPES) for title, counts in card.get("types", {}).items() if counts},
        "languages": _shares(card.get("languages", {}), TYPES),
        "across": {**across, "pairs": across["pairs"][:PAIRS]} if across else None,
    }


def drawn_examples(cards: Mapping[str, JSON]) -> dict[str, list[str]]:
    """The samples that the cards drew, by leaf."""
    return {
        leaf: counts["examples"]
        for card in cards.values()
        for leaf, counts in card.get("leaves", {}).items()
        if counts.get("examples")
    }


def _leaf(leaf: str, counts: JSON) -> dict[str, Any]:
    rows, accepted = counts.get("rows") or 0, counts.get("accepted") or 0
    share = accepted / rows if rows else 0.0
    foreign = counts.get("foreign", {"count": 0, "samples": {}})
    return {
        "leaf": leaf,
        "rows": rows,
        "accepted": accepted,
        "share": share if rows else None,
        "bar": charts.bar(share, f"{accepted} of {rows} rows accepted"),
        "rejected": _most(counts.get("rejected") or {}),
        "languages": _most(counts.get("languages", {})),
        "seed_language": counts.get("seed_language"),
        "foreign": foreign["count"],
        "foreign_samples": list(foreign["samples"].items()),
    }


def _filters(card: JSON) -> list[dict[str, Any]]:
    """The filters that refused something, leaf by leaf."""
    found = []
    for leaf, counts in sorted(card.get("leaves", {}).items()):
        for entry in counts.get("filters", ()):
            entered, left = entry["in"], entry["out"]
            if left < entered:
                bar = charts.bar(left / entered, f"{left} of {entered} rows passed {entry['filter']}")
                found.append({"leaf": leaf, "name": entry["filter"], **entry, "share": left / entered, "bar": bar})
    return found


def _lengths(lengths: JSON) -> list[dict[str, Any]]:
    """For question and answer: the ranks, and how many are up to so many words long."""
    shown = []
    for part, figures in lengths.items():
        if figures.get("words"):
            steps = figures["up_to_words"]
            total = sum(count for _, count in steps)
            named = [(bound, count, f"up to {bound} words" if bound > 1 else "1 word") for bound, count in steps]
            bars = [(bound, count, _bar(count, total, what)) for bound, count, what in named]
            shown.append({"part": part, "words": figures["words"], "tokens": figures["tokens"], "bars": bars})
    return sorted(shown, key=lambda one: str(one["part"]), reverse=True)


def _shares(counts: Mapping[str, int], most: int) -> list[tuple[str, int, str]]:
    """(name, count, bar) of the most frequent; the rest together."""
    ranked, total = _most(counts), sum(counts.values())
    if len(ranked) > most:
        ranked = [*ranked[: most - 1], ("others", sum(count for _, count in ranked[most - 1 :]))]
    return [(name, count, _bar(count, total, name)) for name, count in ranked]


def _bar(count: int, total: int, what: str) -> str:
    return charts.bar(count / total, f"{what}: {count} of {total} samples")


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))

"""How often is the gate wrong? Simulated models of known accuracy, some thousand pairs each.

    python benchmarks/gate.py            # some minutes on one core
    python benchmarks/gate.py --write    # also put the figures into benchmarks/gate.md

A false alarm passes a model that is no better, or stops one that harms nothing. Power is how often a true change is
found. The planned figures are those of the statistics: 2.5 % a side, 5 % for a family of leaves, 80 % power.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ilab.data import Item, Score
from ilab.evaluation.compare import IMPROVED, REGRESSED, compare
from ilab.evaluation.gate import Rules, decide
from ilab.evaluation.statistics import items_needed, wilson
from ilab.testing.simulated import simulated_items, simulated_pair

RESULT = Path(__file__).with_suffix(".md")
HEAD = "| simulated | counted | planned | found | 95 % |\n| --- | --- | ---: | ---: | ---: |"
ABOUT = """Made by `benchmarks/gate.py`: {runs} pairs of simulated models in each row. 20 % of the items are answered
rightly by one of the two alone. The last column is Wilson's interval of what was found."""

Pair = Mapping[str, list[Score]]
Case = tuple[str, str, str, Callable[[random.Random], bool]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=2000, help="simulated pairs in each row")
    arguments.add_argument("--write", action="store_true", help=f"put the figures into {RESULT.name}")
    options = arguments.parse_args()
    rows = []
    for number, (what, counted, planned, happens) in enumerate(cases()):
        draw = random.Random(number)
        hits = sum(happens(draw) for _ in range(options.runs))
        bounds = wilson(hits, options.runs)
        found = f"{100 * hits / options.runs:.1f} % | {100 * (bounds.low or 0):.1f}–{100 * (bounds.high or 0):.1f} %"
        rows.append(f"| {what} | {counted} | {planned} | {found} |")
        print(rows[-1], flush=True)
    if options.write:
        text = "\n".join([HEAD, *rows])
        RESULT.write_text(f"# How often the gate is wrong\n\n{ABOUT.format(runs=options.runs)}\n\n{text}\n")


def cases() -> list[Case]:
    return [
        *(no_better(count) for count in (20, 100, 400)),
        no_better(100, per_cluster=4),
        *(better(effect) for effect in (0.2, 0.1, 0.05)),
        family({}, "any leaf named", "≤ 5 %", bool),
        family({LEAVES[0]: 0.3}, "the leaf found", "≥ 80 %", lambda named: LEAVES[0] in named),
        family({LEAVES[0]: 0.3}, "another leaf named", "≤ 5 %", lambda named: bool(named - {LEAVES[0]})),
        *(harm(*case) for case in ((-0.05, "passed", "≤ 2.5 %"), (0.0, "passed", "80 %"), (0.0, "failed", "≤ 5 %"))),
    ]


LEAVES = [f"knowledge/{number}" for number in range(10)]


def no_better(count: int, per_cluster: int = 1) -> Case:
    items = simulated_items({"knowledge/a": count}, per_cluster)
    together = f", {per_cluster} about each thing" if per_cluster > 1 else ""

    def happens(draw: random.Random) -> bool:
        return bool(gate(items, simulated_pair(items, draw, {}))["verdict"] == "pass")

    return f"{count} items{together}, equal models", "passed as better", "≤ 2.5 %", happens


def better(effect: float) -> Case:
    items = simulated_items({"knowledge/a": items_needed(effect)})

    def happens(draw: random.Random) -> bool:
        return bool(gate(items, simulated_pair(items, draw, {"knowledge/a": effect}))["verdict"] == "pass")

    return f"{len(items)} items, better by {100 * effect:.0f} points", "passed as better", "80 %", happens


def family(effects: Mapping[str, float], counted: str, planned: str, counts: Callable[[set[str]], bool]) -> Case:
    items = simulated_items(dict.fromkeys(LEAVES, 50))

    def happens(draw: random.Random) -> bool:
        found = compare(simulated_pair(items, draw, effects), items)
        return counts({leaf["name"] for leaf in found["leaves"] if leaf["verdict"] in (IMPROVED, REGRESSED)})

    what = "one of 10 leaves of 50 items better by 30 points" if effects else "10 leaves of 50 items, equal models"
    return what, counted, planned, happens


def harm(effect: float, counted: str, planned: str) -> Case:
    """Non-inferiority of the unchanged leaves, margin 5 points, with as many items as that needs."""
    items = simulated_items(dict.fromkeys(LEAVES, -(-items_needed(0.05) // len(LEAVES))))
    rules = Rules(changed=frozenset())

    def happens(draw: random.Random) -> bool:
        found = gate(items, simulated_pair(items, draw, dict.fromkeys(LEAVES, effect)), rules)
        verdicts = {rule["name"]: str(rule["verdict"]) for rule in found["rules"]}
        return verdicts["no harm elsewhere"] == counted[:4]  # "passed", "failed"

    what = f"worse by the margin of {-100 * effect:.0f} points" if effect else "equal models"
    return f"{len(items)} unchanged items, {what}", f"no harm {counted}", planned, happens


def gate(items: list[Item], pair: Pair, rules: Rules | None = None) -> dict[str, Any]:
    scores = [score for found in pair.values() for score in found]
    return decide(compare(pair, items), scores, items, threshold=0.0, metrics=["accuracy"], rules=rules or Rules())


if __name__ == "__main__":
    main()

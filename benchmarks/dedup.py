"""How fast are near-duplicates found among many samples, in how much memory, and how many of them?

    python benchmarks/dedup.py            # some minutes on one core
    python benchmarks/dedup.py --write    # also put the figures into benchmarks/dedup.md

Samples are made by rule: a question of 10 words and an answer of 40, of a vocabulary with frequencies like those of
English (Zipf). A fifth of the samples come again with one to six words changed, so some of those are alike to 0.8 and
some are not. Where comparing all pairs is still possible, the result is held against it. The last row is the
worst case: every pair is made from one pattern and shares most of its words with every other.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from cost import Cost, cost

from ilab.sdg.near import Text, jaccard, repeats, shingles

RESULT = Path(__file__).with_suffix(".md")
THRESHOLD = 0.8
WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in ("a", "e", "i", "o", "ou") for c in range(400)]
WEIGHTS = list(accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))
HEAD = "| samples | refused | processor time | wall time | peak memory | of those that all pairs give |\n" + (
    "| ---: | ---: | ---: | ---: | ---: | --- |"
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments.add_argument("--exact", type=int, default=4_000, help="samples of which all pairs are compared")
    arguments.add_argument("--pattern", type=int, default=20_000, help="samples of the worst case")
    arguments.add_argument("--write", action="store_true", help=f"put the figures into {RESULT.name}")
    arguments.add_argument("--measure", nargs=2, metavar=("KIND", "N"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        kind, count = options.measure
        print(json.dumps(measure(MADE[kind], int(count), check=kind == "exact")))
        return
    jobs = [("exact", options.exact), *(("drawn", count) for count in options.samples), ("pattern", options.pattern)]
    rows = []
    for kind, count in jobs:
        found = cost([sys.executable, __file__, "--measure", kind, str(count)], times=1)
        rows.append(row(kind, count, found))
        print(rows[-1], flush=True)
    text = "\n".join([HEAD, *rows])
    if options.write:
        RESULT.write_text(f"# Near-duplicates among many samples\n\n{ABOUT}\n\n{text}\n")


ABOUT = """Made by `benchmarks/dedup.py` on one core: word 3-shingles, 128 minima, threshold 0.8. Time and memory are
those of a process that makes the samples, too, and holds them; the second figure is what the search took or added.
The first row is held against comparing all pairs. `pattern` is the worst case, samples made from one pattern."""


def row(kind: str, count: int, found: Cost) -> str:
    told = json.loads(found.output)
    exact = f"{told['recall']:.4f}; refused without reason: {told['wrong']}" if "recall" in told else ""
    name = f"{count:,}" + (" (pattern)" if kind == "pattern" else "")
    memory = f"{found.peak / 2**20:.0f} MiB, {told['added'] / 2**20:.0f} MiB"
    time_ = f"{found.cpu:.1f} s, {told['cpu']:.1f} s | {told['wall']:.1f} s"
    return f"| {name} | {told['refused']:,} | {time_} | {memory} | {exact} |"


def measure(make: Callable[[int], list[Text]], count: int, *, check: bool) -> dict[str, float]:
    """Counts, seconds, and by how many bytes the process grew."""
    texts = make(count)
    before, cpu, wall = peak(), time.process_time(), time.monotonic()
    found = repeats(texts, THRESHOLD)
    told: dict[str, float] = {
        "refused": len(found),
        "cpu": time.process_time() - cpu,
        "wall": time.monotonic() - wall,
        "added": peak() - before,
    }
    if check:
        exact = compare_all(texts)
        told |= {"recall": len(exact & set(found)) / len(exact), "wrong": len(set(found) - exact)}
    return told


def compare_all(texts: list[Text]) -> set[int]:
    """What is alike to an earlier text that stays, each compared with each."""
    staying: list[tuple[frozenset[str], frozenset[str]]] = []
    repeated = set()
    for number, text in enumerate(texts):
        answer = shingles(text.answer)
        whole = shingles(text.question) | answer
        if any(jaccard(whole, one) >= THRESHOLD and jaccard(answer, other) >= THRESHOLD for one, other in staying):
            repeated.add(number)
        else:
            staying.append((whole, answer))
    return repeated


def drawn(count: int) -> list[Text]:
    draw = random.Random(42)
    texts: list[Text] = []
    while len(texts) < count:
        words = draw.choices(WORDS, cum_weights=WEIGHTS, k=50)
        texts.append(Text(" ".join(words[:10]), " ".join(words[10:])))
        if draw.random() < 0.2:
            for _ in range(draw.randint(1, 6)):
                words[draw.randrange(50)] = draw.choice(WORDS)
            texts.append(Text(" ".join(words[:10]), " ".join(words[10:])))
    return texts[:count]


def pattern(count: int) -> list[Text]:
    """Pairs that have about seven tenths of their shingles in common, each with each."""
    draw = random.Random(42)
    frame = draw.choices(WORDS, k=44)
    return [
        Text(" ".join([*frame[:10], *draw.choices(WORDS, k=3)]), " ".join([*frame[10:], *draw.choices(WORDS, k=3)]))
        for _ in range(count)
    ]


def peak() -> int:
    """The greatest resident memory so far, in bytes."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


MADE: dict[str, Callable[[int], list[Text]]] = {"exact": drawn, "drawn": drawn, "pattern": pattern}

if __name__ == "__main__":
    main()

"""Does the quickstart really teach the facts? Measured on the untouched test questions.

    python benchmarks/quickstart.py            # about a quarter of an hour on two cores
    python benchmarks/quickstart.py --write    # also put the figures into README.md

For each of three seeds the pipeline is built twice: on the taxonomy as it is (*tuned*), and on a copy in which the
facts are permuted among themselves, consistently in the documents and in the examples (*placebo*: the same training
on the same sentences, with other facts in them). Both, and the untrained base, answer the same questions. Figures are
pooled over the seeds; intervals are paired and clustered by question, because one question is asked once per seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ilab.data import Chunk, Item
from ilab.evaluation.baseline import open_book
from ilab.evaluation.statistics import Difference, paired_difference, proportion

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "quickstart"
GROUPS = Path(__file__).with_name("quickstart_placebo.yaml")
SEEDS = (42, 43, 44)
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    arguments.add_argument("--store", type=Path, default=ROOT / ".ilab" / "benchmark", help="kept between calls")
    arguments.add_argument("--json", type=Path, help="write the figures there")
    arguments.add_argument("--write", action="store_true", help="put the figures into README.md")
    options = arguments.parse_args()
    figures = measure(options.seeds, options.store.resolve())
    text = table(figures)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.write:
        put(ROOT / "README.md", text)


def measure(seeds: Sequence[int], store: Path) -> dict[str, Any]:
    """Build everything, then pool. Times are of the first build only when nothing of it was in the store."""
    scores: dict[str, dict[str, list[float]]] = {"base": {}, "phase 1": {}, "tuned": {}, "placebo": {}}
    items: dict[str, Item] = {}
    chunks: list[Any] = []
    builds = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            placebo = make_placebo(Path(folder) / f"placebo-{seed}", seed)
            for name, taxonomy in (("tuned", EXAMPLE / "taxonomy"), ("placebo", placebo)):
                print(f"building {name}, seed {seed} …", file=sys.stderr, flush=True)
                builds.append(build(store, taxonomy, seed) | {"build": name, "seed": seed})
                collect(store, name, scores)
                if name == "tuned":
                    latest = store / "latest"
                    items = {i.id: i for i in map(Item.model_validate_json, lines(latest / "items" / "items.jsonl"))}
                    chunks = [json.loads(line) for line in lines(latest / "documents" / "chunks.jsonl")]
    return pool(scores, items, chunks, builds, seeds)


def build(store: Path, taxonomy: Path, seed: int) -> dict[str, float]:
    """One build through the command line. Returns seconds and the peak memory of the process in bytes."""
    command = [sys.executable, "-m", "ilab", "-C", str(EXAMPLE), "--store", str(store), "run"]
    command += ["--until", "final-evaluation", "-p", f"sdg_repo_url={taxonomy}"]
    command += ["-p", f"train_seed={seed}", "-p", f"sdg_random_seed={seed}"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": time.monotonic() - began, "peak_bytes": peak}


def collect(store: Path, name: str, scores: dict[str, dict[str, list[float]]]) -> None:
    """The test scores of the build just made, per item in the order of the seeds."""
    steps = {"tuned": "score-phase-2", "base": "score-base", "phase 1": "score-phase-1"}
    for label, step in steps.items() if name == "tuned" else {"placebo": "score-phase-2"}.items():
        for line in lines(store / "latest" / step / "scores.jsonl"):
            score = json.loads(line)
            scores[label].setdefault(score["item"], []).append(score["value"])


def make_placebo(target: Path, seed: int) -> Path:
    """A copy of the taxonomy whose facts changed places. ``eval.yaml`` stays as it is: the questions are the same."""
    shutil.copytree(EXAMPLE / "taxonomy", target)
    for leaf, groups in yaml.safe_load(GROUPS.read_text()).items():
        swap: dict[str, str] = {}
        for number, group in enumerate(groups):
            moved = derangement(len(group), random.Random(f"{seed}/{leaf}/{number}"))
            swap |= {value: group[moved[place]] for place, value in enumerate(group)}
        pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, sorted(swap, key=len, reverse=True))) + r")(?!\w)")
        for path in [*(target / leaf).glob("*.md"), target / leaf / "qna.yaml"]:
            path.write_text(pattern.sub(lambda match, swap=swap: swap[match[0]], path.read_text()))
    return target


def derangement(count: int, generator: random.Random) -> list[int]:
    """A permutation that leaves nothing in its place."""
    while True:
        order = list(range(count))
        generator.shuffle(order)
        if all(place != value for place, value in enumerate(order)):
            return order


def pool(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    items: Mapping[str, Item],
    chunks: Sequence[Any],
    builds: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
) -> dict[str, Any]:
    test = [item for item in items.values() if item.split == "test"]
    knowledge = [item for item in test if item.kind == "mcq"]
    skills = [item for item in test if item.kind == "exact"]
    book = open_book(knowledge, [Chunk.model_validate(chunk) for chunk in chunks])
    leaves = sorted({item.leaf for item in knowledge})
    return {
        "seeds": list(seeds),
        "knowledge": {
            "questions": len(knowledge),
            "accuracy": {name: rate(scores[name], knowledge) for name in scores},
            "over_base": difference(scores["base"], scores["tuned"], knowledge),
            "over_placebo": difference(scores["placebo"], scores["tuned"], knowledge),
            "open_book": sum((book[leaf] or 0.0) for leaf in leaves) / len(leaves),
        },
        "skills": {
            leaf: {"items": len(own), "base": rate(scores["base"], own), "tuned": rate(scores["tuned"], own)}
            for leaf in sorted({item.leaf for item in skills})
            if (own := [item for item in skills if item.leaf == leaf])
        },
        "builds": list(builds),
    }


def rate(scores: Mapping[str, Sequence[float]], items: Sequence[Item]) -> dict[str, Any]:
    values = [(value, item.id) for item in items for value in scores[item.id]]
    found = proportion([value for value, _ in values], [cluster for _, cluster in values])
    return {"value": found.mean, "low": found.low, "high": found.high}


def difference(
    one: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]], items: Sequence[Item]
) -> dict[str, Any]:
    pairs = [(a, b, item.id) for item in items for a, b in zip(one[item.id], other[item.id], strict=True)]
    found: Difference = paired_difference([a for a, _, _ in pairs], [b for _, b, _ in pairs], [c for _, _, c in pairs])
    return {"value": found.mean, "low": found.low, "high": found.high, "p": found.p}


def table(figures: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    knowledge = figures["knowledge"]
    accuracy = knowledge["accuracy"]
    skills = [
        f"| {leaf.split('/')[-1]}: exact match on {own['items']} new combinations | {percent(own['base'])} | | "
        f"{percent(own['tuned'])} |"
        for leaf, own in figures["skills"].items()
    ]
    fresh = [build["seconds"] for build in figures["builds"] if build["build"] == "tuned" and build["seconds"] > 30]
    peak = max(build["peak_bytes"] for build in figures["builds"])
    lines_ = [
        f"{len(figures['seeds'])} seeds, {knowledge['questions']} untouched multiple-choice questions, pooled, 95 % "
        "intervals clustered by question (`make bench`):",
        "",
        "| | untrained base | placebo: facts permuted | tuned |",
        "| --- | --- | --- | --- |",
        f"| knowledge: closed-book accuracy | {percent(accuracy['base'])} | {percent(accuracy['placebo'])} | "
        f"**{percent(accuracy['tuned'])}** |",
        f"| … tuned, above it | **{points(knowledge['over_base'])}** | **{points(knowledge['over_placebo'])}** | |",
        *skills,
        "",
        f"Open book, word overlap with the document and no model at all answers {100 * knowledge['open_book']:.0f} % "
        "of the knowledge questions. This is small-scale recall of two documents, not a chat model.",
        f"Peak memory of a build: {peak / 1e9:.1f} GB."
        + (
            f" Wall time of a build: {min(fresh):.0f} to {max(fresh):.0f} s on {os.cpu_count()} cores." if fresh else ""
        ),
    ]
    return "\n".join(lines_)


def percent(rate_: Mapping[str, Any]) -> str:
    return f"{100 * rate_['value']:.0f} % [{100 * rate_['low']:.0f}, {100 * rate_['high']:.0f}]"


def points(found: Mapping[str, Any]) -> str:
    return f"{100 * found['value']:+.0f} points [{100 * found['low']:+.0f}, {100 * found['high']:+.0f}]"


def put(path: Path, text: str) -> None:
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    main()

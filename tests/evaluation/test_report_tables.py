"""The report's figures as a table, two reports side by side, and its size with many leaves."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ilab.data import Chunk, Item, Leaf, Message, Origin, Place, QuestionAnswer, Sample, Score, SeedExample
from ilab.errors import InputError
from ilab.evaluation.compare import compare
from ilab.evaluation.gate import decide
from ilab.evaluation.report import View, render, twin
from ilab.evaluation.report_cost import judged, spent
from ilab.evaluation.report_diff import diff, read_told
from ilab.evaluation.report_rows import COLUMNS, csv_text, metric_rows

MODELS = ("base", "phase 1", "phase 2")


def leaf_name(number: int) -> str:
    return f"knowledge/region_{number // 8}/place_{number}"


def build(leaves: int, each: int, rates: tuple[float, ...] = (0.2, 0.6, 0.5), samples: int = 20, seed: int = 1) -> View:
    """A view of ``leaves`` leaves with ``each`` items; the models are right at ``rates``."""
    draw = random.Random(seed)
    names = [leaf_name(number) for number in range(leaves)]
    items, scores, taught, chunks = [], {model: [] for model in MODELS}, [], []
    for number, leaf in enumerate(names):
        for n in range(each):
            one = Item(
                id=f"{leaf}/eval/{n}", leaf=leaf, split="test", kind="exact", cluster=f"{leaf}{n // 2}",
                question=f"How high, in the survey of part {n}, is the {n}th wall of place number {number}?",
                gold=f"{10 + n} metres and a half",
            )  # fmt: skip
            items.append(one)
            for model, rate in zip(MODELS, rates, strict=True):
                right = draw.random() < rate
                answer = one.gold if right else "seven metres, as far as anybody in the region can remember it"
                scores[model].append(
                    Score(
                        item=one.id,
                        leaf=leaf,
                        model=model,
                        kind="exact",
                        cluster=one.cluster,
                        value=float(right),
                        answer=answer,
                        metrics={"f1": draw.random()},
                    )
                )
        for n in range(samples):
            messages = (
                Message(role="user", content=f"How high is the {n}th wall of place number {number}? " + "Say it. " * 9),
                Message(role="assistant", content=f"{10 + n} metres and a half"),
            )
            origin = Origin(leaf=leaf, leaf_digest="", chunk="c0", flow="full", block="ask", teacher="t",
                            usage={"prompt_tokens": 700, "completion_tokens": 30})  # fmt: skip
            taught.append(Sample(id=f"{leaf}#c0/{n}", leaf=leaf, messages=messages, origin=origin))
        text = " ".join(f"The {n}th wall of place number {number} is {10 + n} metres and a half." for n in range(each))
        chunks.append(Chunk(id="c0", leaf=leaf, document="d", source=f"{leaf}/walls.md", heading=("Walls",),
                            span=(0, len(text)), text=text, tokens=9))  # fmt: skip
    comparison = compare(scores, items)
    place = Place(file="qna.yaml", line=3)
    seed_pairs = (SeedExample(pairs=(QuestionAnswer(question="q", answer="a", place=place),), place=place),)
    return View(
        title="walls 1",
        pipeline="instructlab",
        comparison=comparison,
        gate=decide(comparison, scores["phase 2"], items, threshold=0.3, metrics=["accuracy", "f1"]),
        samples=taught,
        items=items,
        scores=scores,
        chunks=chunks,
        leaves=[
            Leaf(path=name, kind="knowledge", version=3, created_by="me", seeds=seed_pairs, digest="a1", place=place)
            for name in names
        ],
        settings={"seed": {"value": seed, "origin": "default"}},
        prices={"read": 2.0, "written": 10.0, "currency": "EUR"},
    )


@pytest.fixture(scope="module")
def small() -> View:
    return build(3, 24)


def test_forty_leaves_stay_below_a_megabyte():
    view = build(40, 24, samples=10)
    html = render(view)
    assert len(html.encode()) < 1_000_000
    assert all(f"place_{number}<" in html for number in range(40))
    assert len(view.diagnoses) == sum(score.value == 0 for score in view.scores["phase 2"])
    shown = len(re.findall(r'<p class="why">', html))
    assert 80 <= shown <= 320


def test_the_page_says_why_and_shows_what_taught_it(small: View):
    html = " ".join(render(small).split())
    assert {found.cause for found in small.diagnoses} >= {"learned then forgotten", "not learned", "not covered"}
    for found in ("learned then forgotten", "not covered"):
        assert f'<span class="tag {found.replace(" ", "-")}">{found}</span>' in html
    assert "How high is the 1th wall of place number 0? Say it." in html
    assert f"{leaf_name(0)}/walls.md (Walls)" in html
    counts = {cause: int(count) for count, cause in re.findall(r"<li><b>(\d+)</b> ([a-z ]+)</li>", html)}
    assert counts == twin(small)["causes"] and sum(counts.values()) == len(small.diagnoses)


def test_the_page_can_be_read_by_everybody(small: View):
    """Landmarks, one heading of the first order, headings without gaps, contrast of text in both schemes (WCAG AA)."""
    html = render(small)
    for mark in ("<main>", "<header", "<footer>", "<nav aria-label=", 'lang="en"', 'class="skip" href="#learned"'):
        assert mark in html
    levels = [int(level) for level in re.findall(r"<h(\d)", html)]
    assert levels.count(1) == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    schemes = re.findall(r":root \{(.*?)\}", html, re.DOTALL)[:2]
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", scheme))
        for text, grounds in {
            "ink": ("ground", "panel", "code"), "soft": ("ground", "panel"), "good": ("panel", "good-ground"),
            "bad": ("panel", "bad-ground"), "unsure": ("panel", "unsure-ground"), "tuned": ("ground", "panel"),
        }.items():  # fmt: skip
            for ground in grounds:
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def rows_of(view: View, run: str = "r1") -> list[dict]:
    return metric_rows(run, view.comparison, view.gate, view.items, view.scores)


def test_metrics_have_one_row_for_each_number_and_match_numpy(small: View):
    rows = rows_of(small)
    assert all(tuple(row) == COLUMNS for row in rows)
    assert len({(row["suite"], row["leaf"], row["model"], row["metric"]) for row in rows}) == len(rows)
    found = {(row["leaf"], row["model"], row["metric"]): row for row in reversed(rows)}
    leaf = leaf_name(1)
    values = np.array([score.value for score in small.scores["phase 2"] if score.leaf == leaf])
    row = found[leaf, "phase 2", "score"]
    sums = (values - values.mean()).reshape(-1, 2).sum(axis=1)  # clusters of two
    error = math.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(values)
    assert row["value"] == pytest.approx(values.mean(), abs=1e-6)
    assert row["se"] == pytest.approx(error, abs=1e-6)
    assert row["ci_low"] < row["value"] < row["ci_high"] and (row["n"], row["n_unscored"]) == (24, 0)
    change = found["all", "phase 2", "change"]
    base = np.array([score.value for score in small.scores["base"]])
    tuned = np.array([score.value for score in small.scores["phase 2"]])
    assert change["value"] == pytest.approx((tuned - base).mean(), abs=1e-6) and change["se"] > 0
    assert found["all", "phase 2", "accuracy"]["value"] == pytest.approx(tuned.mean(), abs=1e-6)


def test_csv_is_read_back_and_runs_nothing(small: View):
    rows = rows_of(small, run="=cmd|' /C calc'!A0")
    table = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [tuple(row) for row in table] == [COLUMNS] * len(rows)
    assert {row["run"] for row in table} == {"'=cmd|' /C calc'!A0"}
    assert [row["value"] for row in table] == ["" if row["value"] is None else str(row["value"]) for row in rows]


def told(view: View):
    return read_told(json.loads(json.dumps(twin(view))), "report.json")


def test_a_report_against_itself_shows_no_change(small: View):
    same = diff(told(small), told(small))
    assert all(leaf["change"]["value"] == 0 and leaf["verdict"] == "no detectable change" for leaf in same["leaves"])
    assert not same["settings"] and not same["causes"] and not same["edited"] and same["only"] == [[], []]


def test_diff_pairs_the_shared_items_and_names_what_differs(small: View):
    leaf = leaf_name(2)
    better = {
        **small.scores,
        "phase 2": [
            score.model_copy(update={"value": 1.0}) if score.leaf == leaf else score
            for score in small.scores["phase 2"]
        ],
    }
    fewer = small.items[2:]
    edited = [one.model_copy(update={"digest": "b2"}) if one.path == leaf else one for one in small.leaves]
    after = replace(
        small, items=fewer, scores=better, comparison=compare(better, fewer), leaves=edited,
        settings={"seed": {"value": 9, "origin": "ilab.yaml"}},
    )  # fmt: skip
    found = diff(told(small), told(after))
    changes = {one["name"]: one for one in found["leaves"]}
    before = np.array([score.value for score in small.scores["phase 2"] if score.leaf == leaf])
    assert changes[leaf]["change"]["value"] == pytest.approx(1 - before.mean(), abs=1e-6)
    assert changes[leaf]["verdict"] == "improved" and len(changes[leaf]["gained"]) == int((before == 0).sum())
    assert changes[leaf_name(0)]["shared"] == 22 and changes[leaf_name(0)]["change"]["value"] == 0
    assert changes[leaf_name(1)]["verdict"] == "no detectable change"
    assert found["settings"] == {"seed": [1, 9]} and found["edited"] == [leaf]
    assert found["causes"]


def test_reports_without_scores_are_compared_by_their_shares(small: View):
    plain = twin(small)
    del plain["scored"]
    found = diff(read_told(plain, "a"), told(build(3, 24, seed=5)))
    assert found["total"]["shared"] == 0 and found["total"]["verdict"] == "inconclusive"
    assert found["total"]["change"]["value"] == pytest.approx(
        found["total"]["after"] - found["total"]["before"], abs=1e-6
    )
    assert found["total"]["change"]["low"] is None


@pytest.mark.parametrize("plain", [[], {"schema": "other"}, {"schema": "ilab-report/1", "title": 3}])
def test_what_is_no_report_is_refused(plain):
    with pytest.raises(InputError):
        read_told(plain, "x.json")


def test_costs_are_tokens_times_the_price(small: View):
    rows = {row["what"]: row for row in spent(small.samples, {"phase 1": [{"tokens": 5}, {"tokens": 7}]}, small.prices)}
    assert rows["t, tokens read"] == {"what": "t, tokens read", "tokens": 42_000, "cost": 0.084}
    assert rows["t, tokens written"]["cost"] == pytest.approx(0.018)
    assert rows["trained on in phase 1"]["tokens"] == 12 and judged([]) == []

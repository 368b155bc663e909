"""The report page: complete, self-contained, escaped, small; and its JSON twin."""

import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ilab.data import Chunk, Item, Judgment, Message, Origin, Rejected, Sample, Score, Verdict
from ilab.evaluation.baseline import choices_only, open_book
from ilab.evaluation.choose import choose
from ilab.evaluation.compare import compare
from ilab.evaluation.gate import decide
from ilab.evaluation.report import View, clip, render, seconds, twin
from ilab.evaluation.summary import summary_rows

KNOWLEDGE = ("knowledge/history/cormorant_point_lighthouse", "knowledge/software/tideline_glossary")
SKILLS = ("skills/extraction/visit_note_to_record", "skills/writing/reminder")
MODELS = ("base", "phase 1", "phase 2")
RATES = {
    KNOWLEDGE[0]: (0.25, 0.6, 0.62),
    KNOWLEDGE[1]: (0.25, 0.4, 0.45),
    SKILLS[0]: (0, 0, 1.0),
    SKILLS[1]: (0, 0, 0.9),
}
TEXT = (
    "Cormorant Point Lighthouse stands on the northern headland of Skerry Bay. It was designed by Tobias Quill "
    "and first lit on 4 May 1871. The tower is built of pink granite and is 31 metres high. The lamp room is "
    "reached by 164 steps. The lens was made in Bristol by the firm of Hale and Sons."
)
EVIDENCE = "The tower is built of pink granite and is 31 metres high."


def make_items() -> list[Item]:
    items = []
    for leaf in KNOWLEDGE:
        for n in range(24):
            options = (f"pink granite {n}", f"grey slate {n}", f"red brick {n}", f"white marble {n}")
            items.append(
                Item(
                    id=f"{leaf}#eval/{n:02}",
                    leaf=leaf,
                    split="test",
                    kind="mcq",
                    question=f"What is part {n} of the tower made of?",
                    options=options[n % 4 :] + options[: n % 4],
                    gold=options[0],
                    cluster=f"c{n // 2}",
                )
            )
    for leaf in SKILLS:
        for n in range(20):
            items.append(
                Item(
                    id=f"{leaf}#eval/{n:02}",
                    leaf=leaf,
                    split="test",
                    kind="exact",
                    question="Turn the note into a record.",
                    context=f"Ana Brook came at {9 + n % 8}:30 to repair pump {n}.",
                    gold=f"name: Ana Brook | time: {9 + n % 8}:30 | task: repair pump {n}",
                    cluster=f"c{n}",
                )
            )
    return items


def make_scores(items: list[Item]) -> dict[str, list[Score]]:
    draw = random.Random(7)
    scores: dict[str, list[Score]] = {model: [] for model in MODELS}
    for item in items:
        luck = draw.random()
        for number, model in enumerate(MODELS):
            right = (luck if number else draw.random()) < RATES[item.leaf][number]
            wrong = next((option for option in item.options if option != item.gold), "visit visit the the 12")
            scores[model].append(
                Score(
                    item=item.id,
                    leaf=item.leaf,
                    model=model,
                    kind=item.kind,
                    cluster=item.cluster,
                    value=float(right),
                    answer=item.gold if right else wrong,
                )
            )
    return scores


def make_samples(leaf: str) -> list[Sample]:
    return [
        Sample(
            id=f"{leaf}#9c41ab02/{block}-{n}",
            leaf=leaf,
            messages=(
                Message(role="user", content="What is the tower of Cormorant Point Lighthouse built of?"),
                Message(role="assistant", content="Pink granite."),
            ),
            origin=Origin(
                leaf=leaf,
                leaf_digest="ab" * 32,
                document="cd" * 32,
                source="documents/lighthouse.md",
                chunk="9c41ab02",
                span=(0, len(TEXT)),
                evidence=EVIDENCE,
                flow="extractive",
                block=block,
                verdicts=(Verdict(block="grounded", accepted=True, reason="answer stands in the passage"),),
            ),
        )
        for block in ("definition", "number", "table")
        for n in range(4)
    ]


def make_metrics(steps: int, start: float, end: float) -> list[dict[str, float]]:
    draw = random.Random(steps)
    return [
        {
            "step": step,
            "epoch": 20 * step / steps,
            "loss": end + (start - end) * 0.5 ** (8 * step / steps) + draw.uniform(-0.08, 0.08),
            "gradient_norm": 1.0,
            "learning_rate": 3e-3 * min(step / 20, 1 - 0.95 * step / steps),
            "tokens": 900,
        }
        for step in range(1, steps + 1)
    ]


STEPS = (
    ("taxonomy", "reused", 0.1, {"leaves": 4}),
    ("documents", "reused", 0.3, {"documents": 2, "chunks": 14}),
    ("items", "reused", 0.2, {"items": 176}),
    ("base", "linked", 0.0, {"parameters": 436704}),
    ("generate", "run", 2.4, {"samples": 612, "rejected": 96}),
    ("train-phase-1", "run", 66.8, {"checkpoints": 4}),
    ("select-phase-1", "run", 0.4, {}),
    ("train-phase-2", "run", 84.1, {"checkpoints": 4}),
    ("final-evaluation", "run", 9.7, {"items": 88}),
    ("package", "run", 1.2, {"files": 9}),
)


@pytest.fixture(scope="module")
def view() -> View:
    items = make_items()
    scores = make_scores(items)
    chunks = [
        Chunk(
            id="9c41ab02",
            leaf=leaf,
            document="cd" * 32,
            source="documents/lighthouse.md",
            heading=("The tower",),
            span=(0, len(TEXT)),
            text=TEXT,
            tokens=70,
        )
        for leaf in KNOWLEDGE
    ]
    baselines = {"choices only": choices_only(items), "open book": open_book(items, chunks)}
    comparison = compare(scores, items, baselines)
    index = [
        {"name": f"step-{n}", "epoch": 5.0 * k, "step": n, "loss": 2.0 / k} for k, n in enumerate((300, 600, 900), 1)
    ]
    dev = {entry["name"]: make_scores(items)[model] for entry, model in zip(index, MODELS, strict=True)}
    return View(
        title="quickstart 0.1.0: tideline-assistant",
        pipeline="quickstart",
        comparison=comparison,
        gate=decide(comparison, scores["phase 2"], items, threshold=0.5, metrics=["accuracy", "f1"]),
        steps=[
            {
                "name": name,
                "type": name.split("-")[0],
                "key": f"{n:x}" * 32,
                "state": state,
                "seconds": s,
                "counts": c,
            }
            for n, (name, state, s, c) in enumerate(STEPS)
        ],
        choices={"phase 1": choose(index, dev), "phase 2": choose(index, {})},
        metrics={"phase 1": make_metrics(900, 7.6, 0.35), "phase 2": make_metrics(900, 4.2, 0.1)},
        cards={
            "generate": {
                "flow": "extractive",
                "leaves": {
                    KNOWLEDGE[0]: {
                        "rows": 310,
                        "accepted": 247,
                        "rejected": {"duplicate": 41, "pronoun": 22},
                        "from_memo": 310,
                    },
                    KNOWLEDGE[1]: {"rows": 178, "accepted": 150, "rejected": {"duplicate": 28}},
                    SKILLS[0]: {"rows": 220, "accepted": 215, "rejected": {"held out": 5}},
                },
                "blocks": {"extract": {"in": 14, "out": 488}, "dedup": {"in": 488, "out": 419}},
            }
        },
        samples=[sample for leaf in KNOWLEDGE for sample in make_samples(leaf)],
        rejected=[
            Rejected(id=f"{KNOWLEDGE[0]}#9c41ab02/number-{n}", leaf=KNOWLEDGE[0], block="dedup", reason=reason, row=row)
            for n, (reason, row) in enumerate(
                [
                    ("equal to definition-3", {"question": "How high is the tower?", "answer": "31 metres"}),
                    ("question has no subject", {"question": "What does it have?", "answer": "164 steps"}),
                ]
            )
        ],
        items=items,
        scores=scores,
        chunks=chunks,
        judgments=[
            Judgment(
                item=item.id, leaf=item.leaf, model="phase 2", judge="rule", mark=mark, marks=(mark, 0.5), note=note
            )
            for item, mark, note in ((items[0], 0.75, ""), (items[1], None, "no mark in the reply"))
        ],
        settings={"sdg_scale_factor": {"value": 30, "origin": "ilab.yaml"}},
        package={"path": ".ilab/store/package/3f0c", "digest": "sha256:" + "3f" * 32, "bytes": 2_310_448},
        registry={
            "name": "tideline-assistant",
            "version": "0.1.0",
            "lineage": {"base": "tiny", "taxonomy": "9c41ab02"},
        },
        notes=[
            "This is a small-scale demonstration: recall of a few facts by a model of 0.4 million parameters.",
            "The base is untrained: it was made on the spot and answers at chance.",
            "No judge was used; answers are compared as text.",
        ],
        machine={
            "cores": 2,
            "memory": "24 GiB",
            "torch": "2.13.0",
            "python": "3.11.7",
            "platform": "linux x86_64",
        },
    )


class Page(HTMLParser):
    """Collects tags and checks that they nest."""

    void = frozenset({"meta", "br", "wbr", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def test_page_is_one_small_file_without_scripts_or_links_outside(view: View):
    html = render(view)
    page = Page(html)
    tags = {tag for tag, _ in page.tags}
    assert len(html.encode()) < 1_000_000
    assert not tags & {"script", "link", "iframe", "img", "object"}
    assert "http://" not in html and "https://" not in html and "url(" not in html
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert all("aria-label" in attrs or "aria-hidden" in attrs for tag, attrs in page.tags if tag == "svg")
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")


def test_page_shows_sections_in_order_and_every_figure_of_the_comparison(view: View):
    html = render(view)
    heads = re.findall(r'<h2 id="(\w+)"', html)
    parts = ["learned", "wrong", "changed", "training", "data", "judge", "built", "settings", "published", "machine"]
    assert heads == parts
    assert {f"#{part}" for part in parts} <= {attrs.get("href") for tag, attrs in Page(html).tags if tag == "a"}
    text = " ".join("".join(Page(html).text).split())
    line, _, reasons = view.gate["line"].partition(" (superior")
    assert line.endswith("INCONCLUSIVE") and line in text and reasons
    assert all(rule["detail"] in text for rule in view.gate["rules"]), "each reason once, under its rule"
    for row in summary_rows(view.comparison):
        assert row["change"]["text"] in text
    for note in view.notes:
        assert note in text
    assert f"<mark>{EVIDENCE}</mark>" in html and "designed by Tobias Quill" in text


def test_the_page_says_what_moved_since_the_previous_release_and_which_leaves_were_edited(view: View):
    scores = {"base": view.scores["base"], "previous": view.scores["phase 2"], "phase 2": view.scores["phase 1"]}
    comparison = compare(scores, view.items)
    changed = [comparison["leaves"][0]["name"]]
    html = render(replace(view, comparison=comparison, scores=scores, gate={**view.gate, "changed": changed}))
    text = " ".join("".join(Page(html).text).split())
    for row in summary_rows(comparison):
        assert f"since the previous release: {row['since_previous']['text']} {row['since_previous']['verdict']}" in text
    assert text.count("edited since the previous release") == 1
    assert "since the previous release" not in render(view)


@pytest.mark.parametrize(
    ("verdict", "publish", "anyway", "says"),
    [
        ("fail", False, False, "it is not published"),
        ("fail", True, True, "published all the same, because publish_anyway was set"),
        ("inconclusive", True, True, "published all the same, because publish_anyway was set"),
        ("inconclusive", True, False, "because gate_on_inconclusive is publish"),
        ("inconclusive", False, False, "because gate_on_inconclusive is stop"),
    ],
)
def test_the_page_says_what_followed_from_the_verdict(view: View, verdict, publish, anyway, says):
    line = f"score 0.10 < 0.50 (f1, 9 items): {verdict.upper()} (why)"
    gate = {**view.gate, "verdict": verdict, "publish": publish, "published_anyway": anyway, "line": line}
    text = " ".join("".join(Page(render(replace(view, gate=gate))).text).split())
    assert says in text and sum(text.count(other) for other in ("publish_anyway was", "is not pub", "may be pub")) == 1


def test_samples_shown_are_few_varied_and_independent_of_order(view: View):
    plain = twin(view)
    blocks = [sample["origin"]["block"] for sample in plain["samples"] if sample["leaf"] == KNOWLEDGE[0]]
    assert blocks == ["definition", "number", "table", "definition", "number"]
    turned = replace(view, samples=list(reversed(view.samples)), rejected=list(reversed(view.rejected)))
    assert twin(turned) == plain
    assert render(turned) == render(view)


HOSTILE = "<script>alert(1)</script>{{ 7 * 7 }}{% for x in y %}\"'><img src=x onerror=alert(1)>"


def test_hostile_text_is_escaped_everywhere(view: View):
    """Every text that reaches the page from outside is replaced by markup and template code."""
    leaf = "knowledge/" + HOSTILE
    item = Item(
        id=HOSTILE,
        leaf=leaf,
        split="test",
        kind="mcq",
        question=HOSTILE,
        context=HOSTILE,
        options=("a", "b"),
        gold="a",
        cluster="c",
    )
    scores = {
        model: [Score(item=HOSTILE, leaf=leaf, model=model, kind="mcq", cluster="c", value=value, answer=HOSTILE)]
        for model, value in ((HOSTILE, 0.0), ("tuned" + HOSTILE, 1.0))
    }
    comparison = compare(scores, [item], {HOSTILE: {leaf: 0.5}})
    sample = make_samples(leaf)[0].model_copy(
        update={
            "id": HOSTILE,
            "messages": (Message(role="user", content=HOSTILE), Message(role="assistant", content=HOSTILE)),
            "origin": Origin(
                leaf=leaf,
                leaf_digest="",
                flow=HOSTILE,
                block=HOSTILE,
                source=HOSTILE,
                evidence=HOSTILE,
                teacher=HOSTILE,
            ),
        }
    )
    hostile = View(
        title=HOSTILE,
        pipeline=HOSTILE,
        comparison=comparison,
        gate=decide(comparison, scores["tuned" + HOSTILE], [item], threshold=0.5, metrics=["accuracy"]),
        steps=[{"name": HOSTILE, "type": HOSTILE, "key": HOSTILE, "state": HOSTILE, "counts": {HOSTILE: 1}}],
        choices={HOSTILE: choose([{"name": HOSTILE}], {})},
        metrics={HOSTILE: [{"step": 1, "loss": 1.0, "learning_rate": 0.1}]},
        cards={
            HOSTILE: {
                "flow": HOSTILE,
                "leaves": {leaf: {"rejected": {HOSTILE: 2}}},
                "blocks": {HOSTILE: {HOSTILE: HOSTILE}},
            }
        },
        samples=[sample],
        rejected=[Rejected(id=HOSTILE, leaf=leaf, block=HOSTILE, reason=HOSTILE, row={HOSTILE: HOSTILE})],
        items=[item],
        scores=scores,
        package={HOSTILE: HOSTILE},
        registry={HOSTILE: {HOSTILE: HOSTILE}},
        notes=[HOSTILE],
        machine={HOSTILE: HOSTILE},
    )
    html = render(hostile)
    page = Page(html)
    assert "<script" not in html and "<img" not in html
    assert "{{ 7 * 7 }}" in html and ">49<" not in html
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert html.count("&lt;script&gt;") > 25


def test_empty_view_still_renders_and_says_so():
    comparison = compare({"base": [], "tuned": []}, [])
    view = View(
        title="t",
        pipeline="p",
        comparison=comparison,
        gate=decide(comparison, [], [], threshold=0.8, metrics=["f1"]),
    )
    html = render(view)
    Page(html)
    assert "no held-out questions" in html and "INCONCLUSIVE" in html
    assert 'id="training"' not in html and 'id="data"' not in html


def test_twin_is_strict_json_and_nan_becomes_null(view: View):
    metrics = {"phase 1": [{"step": 1, "loss": float("nan"), "learning_rate": float("inf")}]}
    broken = replace(view, metrics=metrics)
    plain = twin(broken)
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again["metrics"]["phase 1"] == [{"step": 1, "loss": None, "learning_rate": None}]
    assert again["comparison"] == json.loads(json.dumps(view.comparison))
    assert again["gate"]["line"] == view.gate["line"]
    Page(render(broken))


def test_a_large_run_stays_under_a_megabyte(view: View):
    samples = [sample for n in range(60) for sample in make_samples(f"knowledge/leaf-{n:03}")]
    long = [
        sample.model_copy(update={"messages": (Message(role="user", content="x " * 4000), sample.messages[1])})
        for sample in samples
    ]
    rejected = [view.rejected[0].model_copy(update={"id": f"{n}", "row": {"text": "y " * 4000}}) for n in range(500)]
    big = replace(view, samples=long, rejected=rejected, metrics={"phase 1": make_metrics(20_000, 7.6, 0.3)})
    assert len(render(big).encode()) < 1_000_000


def test_texts_of_figures():
    assert [seconds(value) for value in (None, 0.44, 66.8, 3725)] == ["–", "0.4 s", "1 min 7 s", "1 h 2 min"]
    assert clip("abcdef", 4) == "abc…" and clip("abcd", 4) == "abcd"


def test_a_rule_that_had_nothing_to_look_at_is_not_ticked(view: View):
    rules = [{**rule, "applies": rule["name"] != "general"} for rule in view.gate["rules"]]
    html = render(replace(view, gate={**view.gate, "rules": rules}))
    assert "general: nothing to compare" in html and "general: pass" not in html

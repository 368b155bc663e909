"""The model card: README.md of a package, Markdown with the YAML head that model hubs read.

It is written from facts alone, says what was measured and what was not, and holds no times or host facts, so equal
models have equal cards. Whatever comes from a taxonomy is somebody else's text: it is escaped, kept on one line,
and cannot add markup, table cells, links or head fields.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from ilab.packaging.licences import NOT_ADVICE, Licence

NAME = "README.md"
METHOD = (
    "LAB, *Large-Scale Alignment for ChatBots* ([arXiv 2403.01081](https://arxiv.org/abs/2403.01081)): synthetic "
    "data from a taxonomy of seed examples and documents, then training in two phases, knowledge first and skills "
    "second, with replay"
)
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!&$^@:])")


class Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LeafFact(Fact):
    """A leaf of the taxonomy. ``attribution`` names works and licences in the author's words (attribution.txt)."""

    path: str
    kind: str
    created_by: str
    attribution: str | None = None
    samples: int


class PhaseFact(Fact):
    """One phase of training. ``settings`` are shown as they are (epochs, learning rate, effective batch …)."""

    name: str
    rows: int
    settings: dict[str, str | int | float]
    chosen: str  # which checkpoint was handed on, and by which rule


class ScoreFact(Fact):
    """A leaf's result on ``items`` held-out items. Scores are in 0..1; ``change`` is tuned minus base, paired, and
    ``interval`` its 95 % interval; None where nothing could be measured."""

    leaf: str
    items: int
    base: float | None
    phase1: float | None = None
    tuned: float | None
    change: float | None = None
    interval: tuple[float, float] | None = None


class CardFacts(Fact):
    """Everything a card says. ``teacher`` is None where rules made the data. ``baselines`` are scores (0..1) that
    need no training, by name. ``demonstration`` marks a model too small for anything but showing the method."""

    name: str
    version: str
    license: str
    languages: tuple[str, ...] = ("en",)
    base: str
    base_is_hub_name: bool = False  # whether ``base`` may stand in the head as a name on a model hub
    taxonomy_revision: str
    leaves: tuple[LeafFact, ...]
    flow: str
    teacher: str | None = None
    accepted: int
    rejected: int
    phases: tuple[PhaseFact, ...]
    scores: tuple[ScoreFact, ...] = ()
    baselines: dict[str, float] = {}
    gate: str
    demonstration: bool = False
    terms: tuple[Licence, ...] = ()
    form: Literal["modelcar", "modelpack"] = "modelcar"
    base_image: str = ""
    limits: tuple[str, ...] = ()


def model_card(facts: CardFacts, changelog: str = "") -> str:
    """The card as Markdown. A ``changelog`` (see :mod:`ilab.packaging.changelog`) is a section of it."""
    sections = (
        _head(facts),
        _summary(facts),
        _leaves(facts.leaves),
        _data(facts),
        _training(facts.phases),
        _evaluation(facts),
        *((_below("Changelog", changelog),) if changelog else ()),
        *((_terms(facts.terms),) if facts.terms else ()),
        _limits(facts),
        _use(facts),
    )
    return "\n\n".join(sections) + "\n"


def escape(text: str) -> str:
    """Untrusted text for one line of Markdown: no markup, no links, no control or direction characters."""
    spaced = " ".join(text.split())
    shown = "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    return re.sub(r"(?i)\bwww\.", lambda match: match[0][:-1] + "\\.", _MARKUP.sub(r"\\\1", shown))


def _head(facts: CardFacts) -> str:
    head = {
        "license": facts.license,
        "language": list(facts.languages),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": facts.base} if facts.base_is_hub_name else {}),
        "tags": ["ilab", "instructlab", "lab", "synthetic-data"],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _summary(facts: CardFacts) -> str:
    lines = [f"# {escape(facts.name)} {escape(facts.version)}", ""]
    if facts.demonstration:
        lines += [
            "> **A small-scale demonstration.** This model shows that the method works from end to end. It "
            "recalls what its documents say, and is not a chat model: do not rely on its answers.",
            "",
        ]
    lines += [
        f"* Method: {METHOD}.",
        f"* Base model: {escape(facts.base)}",
        f"* Taxonomy: revision {escape(facts.taxonomy_revision)}, {_count(len(facts.leaves), 'leaf', 'leaves')}",
        f"* Gate: {escape(facts.gate)}",
    ]
    return "\n".join(lines)


def _leaves(leaves: Sequence[LeafFact]) -> str:
    rows = [
        (escape(leaf.path), escape(leaf.kind), escape(leaf.created_by), f"{leaf.samples:,}")
        for leaf in sorted(leaves, key=lambda leaf: leaf.path)
    ]
    lines = ["## What it was taught", "", _table(("Leaf", "Kind", "Author", "Samples"), rows)]
    attributed = [leaf for leaf in sorted(leaves, key=lambda leaf: leaf.path) if leaf.attribution]
    if attributed:
        lines += ["", "Attribution, as the authors of the leaves gave it:", ""]
        lines += [f"* {escape(leaf.path)} — {escape(leaf.attribution or '')}" for leaf in attributed]
    return "\n".join(lines)


def _data(facts: CardFacts) -> str:
    teacher = f"teacher {escape(facts.teacher)}" if facts.teacher else "no teacher: rules over the text"
    made = facts.accepted + facts.rejected
    rate = f" ({facts.accepted / made:.0%} of {made:,})" if made else ""
    return "\n".join(
        (
            "## Data",
            "",
            f"* Flow: {escape(facts.flow)}, {teacher}",
            f"* Samples accepted: {facts.accepted:,}{rate}",
            f"* Samples rejected: {facts.rejected:,}",
        )
    )


def _training(phases: Sequence[PhaseFact]) -> str:
    lines = ["## Training"]
    for phase in phases:
        settings = ", ".join(f"{escape(name)} {escape(str(value))}" for name, value in phase.settings.items())
        lines += [
            "",
            f"* {escape(phase.name)}: {_count(phase.rows, 'row', 'rows')}; {settings or 'default settings'}",
            f"  * handed on: {escape(phase.chosen)}",
        ]
    return "\n".join(lines)


def _evaluation(facts: CardFacts) -> str:
    lines = ["## Evaluation", ""]
    if not facts.scores:
        return "\n".join([*lines, "Nothing was measured."])
    rows = [
        (
            escape(score.leaf),
            f"{score.items:,}",
            _percent(score.base),
            _percent(score.phase1),
            _percent(score.tuned),
            _change(score),
        )
        for score in facts.scores
    ]
    lines += [
        "On held-out items that never entered training; change with its 95 % interval, paired by item.",
        "",
        _table(("Leaf", "Items", "Base", "Phase 1", "Tuned", "Change (points)"), rows),
    ]
    if facts.baselines:
        lines += ["", "Beside these, without any training:", ""]
        lines += [f"* {escape(name)}: {_percent(value)}" for name, value in sorted(facts.baselines.items())]
    return "\n".join(lines)


def _below(title: str, page: str) -> str:
    """A page as a section: its headings one level lower, its title replaced."""
    lines = [f"#{line}" if line.startswith("#") else line for line in page.strip().splitlines()[1:]]
    return "\n".join([f"## {title}", *lines])


def _terms(terms: Sequence[Licence]) -> str:
    lines = ["## Licences and obligations", "", NOT_ADVICE, ""]
    for one in terms:
        lines.append(f"* {escape(one.part)} {escape(one.of)}: {escape(one.licence)}")
        lines += [f"  * {escape(asks)}" for asks in one.obligations]
    return "\n".join(lines)


def _limits(facts: CardFacts) -> str:
    limits = [*(escape(limit) for limit in facts.limits)]
    limits.append("It may state falsehoods fluently, and nobody has examined it for bias or safety.")
    if facts.teacher is None:
        limits.append("Its training questions were made by rules, so it knows few ways of asking.")
    unmeasured = [score.leaf for score in facts.scores if score.change is None]
    if unmeasured:
        limits.append(f"Not measured: {', '.join(escape(leaf) for leaf in unmeasured)}.")
    return "\n".join(["## Limits", "", *(f"* {limit}" for limit in limits)])


def _use(facts: CardFacts) -> str:
    return "\n".join(
        (
            "## How to use it",
            "",
            "```sh",
            "ilab model chat --model-path DIRECTORY     # in the terminal",
            "ilab model serve --model-path DIRECTORY    # an OpenAI-compatible server",
            "```",
            "",
            "`DIRECTORY` is the folder that holds this file. It is an ordinary Hugging Face directory "
            "(safetensors, tokenizer, chat template); `lineage.json` beside it says which steps made the model.",
            "",
            _as_image(facts),
        )
    )


def _as_image(facts: CardFacts) -> str:
    if facts.form == "modelpack":
        return "In a registry it is a ModelPack (CNCF): every file is a layer as it is."
    if facts.base_image:
        return f"In a registry it is a container image on {escape(facts.base_image)}, with these files in `/models`."
    return (
        "In a registry it is a container image of these files in `/models` alone, without a shell: mount it as an "
        "image volume of Kubernetes. KServe's older sidecar needs a base image: `output_modelcar_base_image`."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _change(score: ScoreFact) -> str:
    if score.change is None:
        return "–"
    change = f"{100 * score.change:+.1f}"
    if score.interval is None:
        return change
    low, high = score.interval
    return f"{change} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"

"""The report: what a run made, as one HTML file that needs nothing else, and the same as JSON.

A :class:`View` gathers what the artifacts and the run's record hold; :func:`render` draws it, :func:`twin` writes
it down. Samples, documents and model answers are untrusted text: the template is sandboxed and escapes everything
it is given, and no text ever becomes a template. The file stays small by showing few of each thing and saying how
many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ilab.data import Chunk, Item, Judgment, Leaf, Rejected, Sample, Score
from ilab.evaluation import charts
from ilab.evaluation.diagnose import Diagnosis
from ilab.evaluation.diagnose_taught import Taught
from ilab.evaluation.report_cost import judged, spent
from ilab.evaluation.report_data import card_view, drawn_examples
from ilab.evaluation.report_diff import SCHEMA
from ilab.evaluation.report_learned import answers_of, changed, counted, explained, still_wrong
from ilab.evaluation.summary import percent, summary_rows

TEMPLATE = "report.html.j2"
SAMPLES_PER_LEAF = 5
SAMPLES = 100  # in all
REJECTED = 20
TEXT = 700  # characters of any one text
CONTEXT = 160  # characters of the document on either side of the evidence

JSON = Mapping[str, Any]
Shown = TypeVar("Shown", Sample, Rejected)


@dataclass(frozen=True)
class View:
    """Everything a report shows. All mappings are plain JSON; what is empty is left out of the page.

    ``comparison`` and ``gate`` are those of ``compare`` and ``gate``. ``steps``: name, type, key, state (reused,
    run, linked), seconds, counts. ``choices``, ``metrics`` and ``cards`` are keyed by what they belong to (a
    phase, a data set): a choice is that of ``choose``, metrics are one object per optimizer step (step, epoch,
    loss, gradient_norm, learning_rate, tokens), a card is that of the generated samples. ``items`` and ``scores``
    (by model) give the answers behind the gained and lost items, ``chunks`` the text around a sample's evidence;
    together with ``rejected`` and ``leaves`` they say why an answer is still wrong. ``settings`` are the parameters
    ({name: {value, origin}}), ``prices`` those of a million teacher tokens (read, written, currency),
    ``calibration`` what the judge's marks are worth against people's, ``benchmarks`` the reports of those it marked.
    """

    title: str
    pipeline: str
    comparison: JSON
    gate: JSON
    steps: Sequence[JSON] = ()
    choices: Mapping[str, JSON] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[JSON]] = field(default_factory=dict)
    cards: Mapping[str, JSON] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    rejected: Sequence[Rejected] = ()
    items: Sequence[Item] = ()
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    chunks: Sequence[Chunk] = ()
    leaves: Sequence[Leaf] = ()
    judgments: Sequence[Judgment] = ()
    calibration: JSON = field(default_factory=dict)
    benchmarks: Sequence[JSON] = ()
    settings: Mapping[str, JSON] = field(default_factory=dict)
    prices: JSON = field(default_factory=dict)
    package: JSON = field(default_factory=dict)
    registry: JSON = field(default_factory=dict)
    notes: Sequence[str] = ()
    machine: JSON = field(default_factory=dict)

    @cached_property
    def taught(self) -> Taught:
        """Everything that could have taught an answer, indexed once."""
        return Taught(self.samples, self.rejected, self.chunks, self.leaves)

    @cached_property
    def diagnoses(self) -> list[Diagnosis]:
        """Why each wrong answer of the candidate is wrong."""
        return explained(self.comparison, self.items, self.scores, self.taught)


def render(view: View) -> str:
    """The report as one HTML page (under 1 MB; no scripts, no links to the outside)."""
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "seconds": seconds, "clip": clip, "figure": figure}
    rows, answers = summary_rows(view.comparison), answers_of(view.scores)
    return environment.get_template(TEMPLATE).render(
        view=view,
        headline=_headline(view.gate),
        meaning=_meaning(view.gate),
        rows=[{**row, "chart": _dots(row)} for row in rows],
        causes=counted(view.diagnoses),
        wrong=still_wrong(view.diagnoses, view.comparison, view.items, answers, view.taught),
        changed=changed(view.comparison, view.items, answers, view.taught),
        further=_further(view.comparison),
        spent=spent(view.samples, view.metrics, view.prices),
        measured=_measured(view),
        judged=judged(view.judgments),
        curves=_curves(view.metrics, view.choices),
        cards=[card_view(name, card) for name, card in view.cards.items()],
        samples=_samples(view),
        sample_count=len(view.samples),
        rejected=[record.model_dump(mode="json") for record in _spread(view.rejected, _refusal, REJECTED)],
        rejected_count=len(view.rejected),
        total_seconds=math.fsum(step.get("seconds") or 0.0 for step in view.steps),
    )


def twin(view: View) -> dict[str, Any]:
    """The report's content as plain JSON: every figure, and the samples the page shows. NaN becomes ``None``."""
    shown = _shown(view)
    plain: dict[str, Any] = _finite(
        {
            "schema": SCHEMA,
            "title": view.title,
            "pipeline": view.pipeline,
            "gate": view.gate,
            "comparison": view.comparison,
            "summary": summary_rows(view.comparison),
            "causes": counted(view.diagnoses),
            "wrong": still_wrong(view.diagnoses, view.comparison, view.items, answers_of(view.scores), view.taught),
            "diagnoses": [found.facts() for found in view.diagnoses],
            "changed": changed(view.comparison, view.items, answers_of(view.scores), view.taught),
            "scored": _scored(view),
            "leaves": {leaf.path: leaf.digest for leaf in view.leaves},
            "settings": {name: setting["value"] for name, setting in view.settings.items()},
            "spent": spent(view.samples, view.metrics, view.prices),
            "judged": judged(view.judgments),
            "calibration": view.calibration,
            "benchmarks": _measured(view),
            "choices": view.choices,
            "metrics": view.metrics,
            "cards": view.cards,
            "samples": [sample.model_dump(mode="json", exclude_none=True) for sample in shown],
            "rejected": [record.model_dump(mode="json") for record in _spread(view.rejected, _refusal, REJECTED)],
            "counts": {"samples": len(view.samples), "rejected": len(view.rejected), "items": len(view.items)},
            "steps": view.steps,
            "package": view.package,
            "registry": view.registry,
            "notes": view.notes,
            "machine": view.machine,
        }
    )
    return plain


_MEANING = {
    "pass": "On questions that never entered training, the tuned model reaches the threshold, is better than the "
    "base by more than chance explains, and no leaf got worse.",
    "fail": "At least one rule below is not met.",
    "inconclusive": "The held-out questions cannot tell yet. More questions per leaf narrow the intervals; "
    "the table says how large a change they could have shown.",
}


def _headline(gate: JSON) -> str:
    """The gate's line without its reasons, which stand below it rule by rule."""
    before, verdict, _ = str(gate["line"]).partition(gate["verdict"].upper())
    return before + verdict


def _meaning(gate: JSON) -> str:
    """What the verdict says, and what follows from it."""
    said, verdict = _MEANING[gate["verdict"]], gate["verdict"]
    if verdict == "pass":
        return said
    if gate.get("published_anyway"):
        return f"{said} It was published all the same, because publish_anyway was set: package and registry tell it."
    if verdict == "fail":
        return f"{said} The model was built and kept; it is not published."
    if gate["publish"]:
        return f"{said} It may be published all the same, because gate_on_inconclusive is publish."
    return f"{said} It is not published, because gate_on_inconclusive is stop."


def seconds(value: float | None) -> str:
    """``95.2`` as ``1 min 35 s``."""
    if value is None or not math.isfinite(value):
        return "–"
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def clip(text: Any, length: int = TEXT) -> str:
    """At most ``length`` characters of ``text``, with an ellipsis where something is missing."""
    whole = str(text)
    return whole if len(whole) <= length else whole[: length - 1].rstrip() + "…"


def figure(value: Any) -> str:
    """A number as people read it; an en dash for nothing; any other value as text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}".replace(",", " ") if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _measured(view: View) -> list[dict[str, Any]]:
    """A line for each benchmark and model that the judge marked."""
    return [
        {
            "benchmark": found["benchmark"],
            "model": model,
            "score": found["score"],
            "most": found["scale"][1],
            "n": found["n"],
            "how": found["how"],
            "notes": found["notes"],
        }
        for report in view.benchmarks
        for model, found in report["results"].items()
    ]


def _dots(row: JSON) -> str:
    cells = [charts.Dot(cell["model"], cell["value"], cell["low"], cell["high"]) for cell in row["cells"]]
    marks = [charts.Dot(name, baseline["value"]) for name, baseline in row["baselines"].items()]
    return charts.dots(cells, marks)


def _scored(view: View) -> list[dict[str, Any]]:
    """Every item's values by model, without its text: what a comparison of two reports pairs."""
    values: dict[str, dict[str, float | None]] = {}
    for model, scores in view.scores.items():
        for score in scores:
            values.setdefault(score.item, {})[model] = score.value
    ordered = sorted(view.items, key=lambda item: item.id)
    return [
        {"id": item.id, "leaf": item.leaf, "cluster": item.cluster, "values": values.get(item.id, {})}
        for item in ordered
    ]


def _further(comparison: JSON) -> list[dict[str, Any]]:
    """What the items carry besides their score, per group: figures of Score.metrics, questions without an answer."""
    general = comparison.get("general")
    groups = [*comparison["leaves"], comparison["total"], *([general] if general else [])]
    found = []
    for group in groups:
        lines = [(metric, means) for metric, means in (group.get("metrics") or {}).items()]
        declined = group.get("declined")
        if declined:
            shares = {model: cell["value"] for model, cell in declined["models"].items()}
            lines.append((f"says that it does not know ({declined['n']} questions without an answer)", shares))
        found += [{"leaf": group["name"], "metric": metric, "means": means} for metric, means in lines]
    return found


def _curves(metrics: Mapping[str, Sequence[JSON]], choices: Mapping[str, JSON]) -> list[dict[str, Any]]:
    """Per phase its loss and learning-rate charts, and the figures of its last step."""
    phases = []
    for name, rows in metrics.items():
        choice = choices.get(name)
        chosen = next((entry["step"] for entry in choice["table"] if entry["chosen"]), None) if choice else None
        drawn = {}
        for key, title, height in (("loss", "Training loss", 190), ("learning_rate", "Learning rate", 110)):
            points = [(float(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]
            line = charts.Curve(title, points, chosen)
            drawn[key] = charts.curves([line], title=f"{title}, {name}", unit="optimizer steps", height=height)
        last = rows[-1] if rows else {}
        tokens = sum(row.get("tokens") or 0 for row in rows)
        phases.append({"name": name, "steps": len(rows), "tokens": tokens, "last": last, "chosen": chosen, **drawn})
    return phases


def _samples(view: View) -> list[dict[str, Any]]:
    """The shown samples by leaf, each with its evidence inside the document's own words."""
    texts = {(chunk.leaf, chunk.id): chunk for chunk in view.chunks}
    leaves: dict[str, list[dict[str, Any]]] = {}
    for sample in _shown(view):
        chunk = texts.get((sample.leaf, sample.origin.chunk or ""))
        leaves.setdefault(sample.leaf, []).append(
            {"sample": sample, "passage": _passage(sample.origin.evidence, chunk.text if chunk else None)}
        )
    return [{"leaf": leaf, "samples": shown} for leaf, shown in leaves.items()]


def _passage(evidence: str | None, text: str | None) -> dict[str, str] | None:
    """The evidence with what stands before and after it in ``text``."""
    if not evidence:
        return None
    at = text.find(evidence) if text else -1
    if text is None or at < 0:
        return {"before": "", "evidence": evidence, "after": ""}
    end = at + len(evidence)
    before, after = text[max(0, at - CONTEXT) : at], text[end : end + CONTEXT]
    return {
        "before": ("…" if at > CONTEXT else "") + before,
        "evidence": evidence,
        "after": after + ("…" if end + CONTEXT < len(text) else ""),
    }


def _shown(view: View) -> list[Sample]:
    """A few samples per leaf: those that the card drew, else one of each block in turn."""
    drawn = drawn_examples(view.cards)
    leaves: dict[str, list[Sample]] = {}
    for sample in view.samples:
        leaves.setdefault(sample.leaf, []).append(sample)
    shown: list[Sample] = []
    for leaf in sorted(leaves):
        known = {sample.id: sample for sample in leaves[leaf]}
        chosen = [known[identity] for identity in drawn.get(leaf, ()) if identity in known]
        shown += chosen or _spread(leaves[leaf], lambda sample: sample.origin.block, SAMPLES_PER_LEAF)
    return shown[:SAMPLES]


def _refusal(record: Rejected) -> str:
    return f"{record.leaf}\0{record.block}\0{record.reason}"


def _spread(records: Iterable[Shown], group: Callable[[Shown], str], most: int) -> list[Shown]:
    """At most ``most`` records, one of each group in turn, by id: the same choice whatever their order."""
    groups: dict[str, list[Shown]] = {}
    for record in sorted(records, key=lambda record: record.id):
        groups.setdefault(group(record), []).append(record)
    turns = max((len(found) for found in groups.values()), default=0)
    dealt = [groups[name][turn] for turn in range(turns) for name in sorted(groups) if turn < len(groups[name])]
    return dealt[:most]


def _finite(value: Any) -> Any:
    """``value`` as JSON can hold it: lists and dicts, no NaN, no infinities."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

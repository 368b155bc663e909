"""What a contribution to a taxonomy would change, on one page: the comment under a pull request.

    git base ──▶ leaves touched ──▶ check, lint, documents ──▶ forecast of a build ──▶ a few samples

It makes the same steps as a build, in the same store, cut off behind ``generate``; the preview is limited in rows and
in teacher calls. A contribution that comes without the teacher's key (a fork has no secrets) is previewed by rule.
Everything a contributor wrote is shown as code or escaped, so that it cannot act as Markdown, HTML or a mention.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ilab.actions import Part, prepare
from ilab.artifacts import Documents, Samples
from ilab.config import Loaded
from ilab.core.run import Engine
from ilab.data import Flag, Leaf, Rejected, Sample
from ilab.errors import IlabError, InputError, InputErrors
from ilab.taxonomy.changes import EMPTY, Changes
from ilab.taxonomy.lint import LintWarning
from ilab.transfer.stores import open_store

MARK = "<!-- ilab review -->"  # by which a workflow finds its own comment again
MOST = 60_000  # characters; GitHub takes 65,536
MOST_LISTED = 50  # errors, warnings, leaves
State = Literal["new", "changed", "documents changed", "as it is"]


@dataclass(frozen=True)
class Touched:
    """One leaf of the contribution; ``leaf`` is None where it cannot be read."""

    file: str
    state: State
    leaf: Leaf | None
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """What a build would make of the leaves: ``forecast`` of the whole, ``samples`` and ``rejected`` of the preview.

    ``notes`` say why something is missing.
    """

    forecast: Mapping[str, float] = field(default_factory=dict)
    chunks: int = 0
    flags: tuple[Flag, ...] = ()
    samples: tuple[Sample, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    calls: int = 0
    maker: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    base: str
    commit: str
    touched: tuple[Touched, ...]
    deleted: tuple[str, ...]
    errors: tuple[InputError, ...]
    warnings: tuple[LintWarning, ...]
    look: Look
    currency: str = ""


def touched(changes: Changes, leaves: Sequence[Leaf], known: frozenset[str]) -> tuple[Touched, ...]:
    """The leaves that ``changes`` names; ``known`` are the files that the base has."""
    by_file = {leaf.place.file: leaf for leaf in leaves}
    names = [changes.layout.name(file) for file in changes.layout.files]
    return tuple(
        Touched(
            name,
            _state(changes, name, known),
            by_file.get(name),
            tuple(changes.beside.get(name, ())),
        )
        for name in names
    )


def _state(changes: Changes, name: str, known: frozenset[str]) -> State:
    if not changes.commit:
        return "as it is"
    if name not in changes.files:
        return "documents changed"
    return "changed" if name in known else "new"


def look(loaded: Loaded, path: Path, base: str, preview: Part) -> tuple[Look, list[InputError]]:
    """Forecast a build of the leaves below ``path`` that changed since ``base``, and make a few samples.

    What stands in the way is returned: errors of documents as errors, a teacher that fails as a note.
    """
    notes: list[str] = []
    teacher = loaded.config.where.teacher
    values: dict[str, Any] = {"sdg_repo_url": str(path.absolute()), "taxonomy_base": base or EMPTY}
    if teacher is not None and not _has_key(teacher.api_key, loaded.base):
        notes.append("The teacher's key is not available here (a fork has no secrets): the samples were made by rule.")
        loaded = replace(loaded, config=_without_teacher(loaded))
        values |= {"sdg_pipeline": "extractive", "sdg_teacher_model": "", "eval_items": "rule"}
    made = Look(notes=tuple(notes))
    try:
        made = _forecast(loaded, values, made)
        return _preview(loaded, values | {"sdg_scale_factor": 1}, preview, made), []
    except InputErrors as problems:
        return made, problems.errors
    except InputError as problem:
        return made, [problem]
    except IlabError as error:
        return replace(made, notes=(*made.notes, f"No samples: {error.message}")), []


def _forecast(loaded: Loaded, values: Mapping[str, Any], made: Look) -> Look:
    build = prepare(loaded, values, Part("generate"))
    engine = Engine(open_store(loaded), build.where)
    try:
        for name, planned in build.plan.steps.items():
            if planned.step.only_reads():
                engine.run_step(build.plan, name, latest=False)
        (documents,) = [name for name, planned in build.plan.steps.items() if planned.step.type == "documents"]
        record = engine.run_step(build.plan, documents, latest=False)
        flags = [flag for one in Documents(engine.store.contents(record)).documents() for flag in one.flags]
        expected = engine.preview(build.plan)[-1].expected
    finally:
        engine.close()
    flow = build.given["sdg_pipeline"].value or build.plan.parameters["sdg_pipeline"]
    name = build.plan.parameters["sdg_teacher_model"]
    maker = f"the flow `{_inline(flow)}`" + (f" with the teacher `{_inline(name)}`" if name else ", by rule")
    return replace(made, forecast=expected, chunks=record.counts["chunks"], flags=tuple(flags), maker=maker)


def _preview(loaded: Loaded, values: Mapping[str, Any], preview: Part, made: Look) -> Look:
    build = prepare(loaded, values, preview)
    engine = Engine(open_store(loaded), build.where)
    try:
        for name in build.plan.steps:
            record = engine.run_step(build.plan, name, latest=False)
        samples = Samples(engine.store.contents(record))
        calls = record.counts["calls"] + record.counts["calls_from_memo"]
        return replace(made, samples=tuple(samples.samples()), rejected=tuple(samples.rejected()), calls=calls)
    finally:
        engine.close()


def _has_key(reference: str, base: Path) -> bool:
    """Whether the secret that ``reference`` names is there; no key needed counts as there."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        return bool(os.environ.get(name))
    return not reference or (base / Path(name).expanduser()).is_file()


def _without_teacher(loaded: Loaded) -> Any:
    config = loaded.config
    parameters = {name: value for name, value in config.parameters.items() if name != "sdg_teacher_model"}
    where = config.where.model_copy(update={"teacher": None})
    return config.model_copy(update={"where": where, "parameters": parameters})


# -- the page ----------------------------------------------------------------------------------------------------


def render(review: Review) -> str:
    """The review as Markdown, at most ``MOST`` characters."""
    parts = [MARK, f"## {_title(review)}", *_leaves(review), *_findings(review)]
    if review.touched:
        parts += [*_build(review), *_samples(review.look)]
    text = "\n\n".join(part for part in parts if part)
    if len(text) > MOST:
        text = text[:MOST].rsplit("\n\n", 1)[0] + "\n\n_The rest does not fit into a comment._"
        text += "\n```" if text.count("```") % 2 else ""
    return text + "\n"


def facts(review: Review) -> dict[str, Any]:
    """The review as JSON."""
    return {
        "base": review.base,
        "commit": review.commit,
        "leaves": [
            {
                "file": one.file,
                "state": one.state,
                "path": one.leaf.path if one.leaf else None,
                "kind": one.leaf.kind if one.leaf else None,
                "beside": list(one.beside),
            }
            for one in review.touched
        ],
        "deleted": list(review.deleted),
        "errors": [{"where": error.where, "message": error.message, "hint": error.hint} for error in review.errors],
        "warnings": [
            {"where": str(warning.place), "code": warning.code, "message": warning.message, "hint": warning.hint}
            for warning in review.warnings
        ],
        "forecast": dict(review.look.forecast),
        "chunks": review.look.chunks,
        "flags": [flag.model_dump(mode="json") for flag in review.look.flags],
        "preview": {
            "calls": review.look.calls,
            "samples": [sample.model_dump(mode="json") for sample in review.look.samples],
            "rejected": [row.model_dump(mode="json") for row in review.look.rejected],
        },
        "notes": list(review.look.notes),
    }


def _title(review: Review) -> str:
    if review.errors:
        return f"{_counted(len(review.errors), 'error')} to mend before this can be merged"
    if not review.touched and not review.deleted:
        return "No leaf is touched"
    count = len(review.touched) + len(review.deleted)
    return f"{_counted(count, 'leaf', 'leaves')} touched, no errors"


def _leaves(review: Review) -> list[str]:
    if not review.touched and not review.deleted:
        return [f"Compared with `{_inline(review.base)}`, nothing that a build reads has changed."]
    rows = ["| leaf | | kind | seed examples | question-answer pairs | held out |", "|---|---|---|--:|--:|--:|"]
    for one in review.touched[:MOST_LISTED]:
        if one.leaf is None:
            rows.append(f"| `{_inline(one.file)}` | {one.state} | cannot be read | | | |")
            continue
        leaf = one.leaf
        pairs = sum(len(seed.pairs) for seed in leaf.seeds)
        held = f"{len(leaf.items)}" if leaf.items else "–"
        rows.append(f"| `{_inline(leaf.path)}` | {one.state} | {leaf.kind} | {len(leaf.seeds)} | {pairs} | {held} |")
    rows += [f"| `{_inline(name)}` | deleted | | | | |" for name in review.deleted[:MOST_LISTED]]
    more = len(review.touched) - MOST_LISTED
    beside = [
        f"Changed beside `{_inline(one.file)}`: " + ", ".join(f"`{_inline(name)}`" for name in one.beside[:10])
        for one in review.touched
        if one.beside
    ]
    return ["\n".join(rows), f"… and {more} more leaves." if more > 0 else "", "\n".join(beside[:MOST_LISTED])]


def _findings(review: Review) -> list[str]:
    parts = []
    if review.errors:
        lines = [_finding(error.where, error.message, error.hint) for error in review.errors[:MOST_LISTED]]
        parts += [f"### {_counted(len(review.errors), 'error')}", "\n".join(lines)]
    if review.warnings:
        lines = [
            _finding(str(warning.place), warning.message, warning.hint) for warning in review.warnings[:MOST_LISTED]
        ]
        parts += [f"### {_counted(len(review.warnings), 'warning')}", "\n".join(lines)]
    if review.look.flags:
        lines = [
            _finding(f"{flag.source}, {flag.place}", f"{flag.kind}, {flag.action}: {flag.excerpt}", "")
            for flag in review.look.flags[:MOST_LISTED]
        ]
        parts += [
            f"### {_counted(len(review.look.flags), 'passage')} that speak to a model, or that a reader would not see",
            "\n".join(lines),
        ]
    return parts


def _finding(where: str, message: str, hint: str) -> str:
    place = f"`{_inline(where)}`: " if where else ""
    return f"- {place}{_plain(message)}" + (f"<br>{_plain(hint)}" if hint else "")


def _build(review: Review) -> list[str]:
    seen = review.look
    lines = list(seen.notes)
    expected = seen.forecast
    if "calls" in expected:
        cost = f", about {expected['cost']:,.2f} {review.currency}" if "cost" in expected else ""
        lines.insert(
            0,
            f"These leaves ask at most **{expected['calls']:,.0f} calls** of the teacher, about "
            f"{expected['tokens']:,.0f} tokens{cost}. ({seen.chunks:,} document chunks; {seen.maker}.)",
        )
    elif seen.maker:
        lines.insert(0, f"No teacher is asked: {seen.maker}. ({seen.chunks:,} document chunks.)")
    return ["### What a build would ask for", "\n\n".join(lines)] if lines else []


def _samples(seen: Look) -> list[str]:
    if not seen.samples and not seen.rejected:
        return []
    told = f"{_counted(len(seen.samples), 'sample')} accepted, {len(seen.rejected)} refused"
    asked = f", with {_counted(seen.calls, 'teacher call')}" if seen.calls else ""
    parts = [f"### A look at what it would make\n\n{told}{asked}."]
    by_leaf: dict[str, list[Sample]] = {}
    for sample in sorted(seen.samples, key=lambda sample: sample.train_on == "all"):  # pairs before whole passages
        by_leaf.setdefault(sample.leaf, []).append(sample)
    for leaf, samples in sorted(by_leaf.items()):
        body = "\n\n".join(f"Q: {sample.question}\nA: {sample.answer}" for sample in samples[:3])
        parts.append(f"<details><summary><code>{_html(leaf)}</code></summary>\n\n{_fenced(body)}\n\n</details>")
    if seen.rejected:
        body = "\n".join(f"{row.id}: {row.reason}" for row in seen.rejected[:10])
        parts.append(f"<details><summary>refused</summary>\n\n{_fenced(body)}\n\n</details>")
    return parts


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _visible(text: str) -> str:
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "�", text)


def _inline(text: object) -> str:
    """``text`` for a code span in a table: no backtick, bar or line end."""
    return " ".join(_visible(str(text)).split()).replace("`", "'").replace("|", "¦")[:200]


def _html(text: str) -> str:
    return _inline(text).replace("&", "&amp;").replace("<", "&lt;")


def _plain(text: str) -> str:
    """``text`` as it stands, outside of code: nothing in it is Markdown, HTML, a mention or a reference."""
    line = " ".join(_visible(text).split())[:400]
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"(?<=[@])(?=\w)", "\u200b", escaped).replace("://", ":\u200b//")


def _fenced(text: str) -> str:
    shown = _visible(text)[:4000]
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"

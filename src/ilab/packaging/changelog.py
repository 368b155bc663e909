"""What a build taught the model, beside the release before it: per leaf, with intervals.

    added, changed   each leaf: before, after, and the paired change with its 95 % interval
    removed          the leaves that the release knew and this build was never shown
    unchanged        all others together: were they harmed?

Every figure is taken from the final evaluation and the gate as it stands there, so a reader finds the same numbers in
the report. *Before* is the previous release, or the base model where there is none. The ``chain`` says from which
release a build that made only a part started, and that one from which, back to a full build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ilab.artifacts import Report
from ilab.core.step import Counts, Site
from ilab.packaging.card import escape
from ilab.packaging.lineage import NAME as LINEAGE
from ilab.packaging.oci import read_paper

FORMAT = 1
NAME, PAGE = "changelog.json", "CHANGELOG.md"
KEY = "changelog"  # of the gate's decision that it stands in
INCREMENT, FULL = "increment", "full"
How = Literal["increment", "full"]
NO_HARM = "no harm elsewhere"  # the gate's rule on the unchanged leaves


class ChangelogFields(Protocol):
    """The fields of the step ``changelog``."""

    @property
    def release(self) -> str: ...
    @property
    def how(self) -> How: ...
    @property
    def reason(self) -> str: ...
    @property
    def added(self) -> tuple[str, ...]: ...
    @property
    def changed(self) -> tuple[str, ...]: ...
    @property
    def removed(self) -> tuple[str, ...]: ...
    @property
    def leaves(self) -> Mapping[str, str]: ...


def write_changelog(
    fields: ChangelogFields, evaluation: Mapping[str, Any], gate: Mapping[str, Any], out: Report, site: Site
) -> Counts:
    """Write the gate's decision again, with the changelog of the build in it; see :func:`changelog_of`."""
    release: dict[str, Any] = {}
    if fields.release:
        found = site.locate(fields.release)
        release = release_of(Path((found.details or {})["path"]), fields.release.removeprefix("oci:"))
    out.write({**gate, KEY: changelog_of(fields, evaluation, gate, release)})
    return {"added": len(fields.added), "changed": len(fields.changed), "removed": len(fields.removed)}


def release_of(package: Path, digest: str) -> dict[str, Any]:
    """``version``, ``digest`` and ``chain`` of the release in a package; its version is empty where it does not say."""
    told = _paper(package, LINEAGE).get("model")
    version = told.get("version", "") if isinstance(told, dict) else ""
    return {"version": str(version), "digest": digest, "chain": chain_of(package)}


def changelog_in(package: Path) -> dict[str, Any]:
    """The changelog in a package; empty where there is none that can be read, as in packages of other builds."""
    told = _paper(package, NAME)
    leaves, chain = told.get("leaves"), told.get("chain")
    whole = isinstance(leaves, dict) and isinstance(chain, list)
    whole = whole and all(isinstance(one, dict) and {"version", "digest"} <= one.keys() for one in chain or ())
    return told if whole and told.get("format") == FORMAT else {}


def chain_of(package: Path) -> list[dict[str, str]]:
    """The releases that a package was built on, the oldest first; none for a build from the base model."""
    chain = changelog_in(package).get("chain")
    return [{"version": str(one["version"]), "digest": str(one["digest"])} for one in chain or ()]


def steps_of(package: Path) -> list[dict[str, Any]]:
    """The steps of a package's lineage, each with its ``type`` and ``fields``; none where it does not say."""
    steps = _paper(package, LINEAGE).get("steps")
    named = [one for one in steps if isinstance(one, dict)] if isinstance(steps, list) else []
    return [one for one in named if {"type", "fields"} <= one.keys()]


def changelog_of(
    fields: ChangelogFields, evaluation: Mapping[str, Any], gate: Mapping[str, Any], release: Mapping[str, Any]
) -> dict[str, Any]:
    """The changelog as plain JSON, from the final ``evaluation``, the ``gate``'s decision and the ``release`` before.

    Keys: ``format``, ``how``, ``reason``, ``since`` {version, digest} or null, ``chain``, ``before`` and ``after`` (the
    models' names in the report), ``leaves`` (to a hash of what each teaches), ``added`` and ``changed`` [{leaf, n,
    before, after, change, verdict}], ``removed``, ``unchanged`` {leaves, n, value, low, high, verdict, detail} or null,
    ``gate``.
    """
    since = {key: release[key] for key in ("version", "digest")} if release else None
    chain = [*release["chain"], since] if release and fields.how == INCREMENT else []
    before = evaluation.get("previous") or evaluation["reference"]
    known = {leaf["name"]: leaf for leaf in evaluation["leaves"]}
    rule = next((rule for rule in gate["rules"] if rule["name"] == NO_HARM), None)
    # The gate knows leaves by what their authors wrote: one of which only a document changed must not get worse.
    kept = sorted(fields.leaves.keys() - set(gate["changed"] or ()))
    unchanged = None
    if kept and release and rule is not None:
        figures = {key: rule.get(key) for key in ("n", "value", "low", "high", "verdict", "detail")}
        unchanged = {"leaves": kept, **figures}
    return {
        "format": FORMAT,
        "how": fields.how,
        "reason": fields.reason,
        "since": since,
        "chain": chain,
        "before": before,
        "after": evaluation["candidate"],
        "leaves": dict(fields.leaves),
        "added": [_leaf(path, known.get(path), evaluation, before) for path in fields.added],
        "changed": [_leaf(path, known.get(path), evaluation, before) for path in fields.changed],
        "removed": list(fields.removed),
        "unchanged": unchanged,
        "gate": {key: gate[key] for key in ("verdict", "line")},
    }


def _leaf(path: str, leaf: Mapping[str, Any] | None, evaluation: Mapping[str, Any], before: str) -> dict[str, Any]:
    """A leaf's figures as they stand in the report; a leaf without a test item has none."""
    if leaf is None:
        return {"leaf": path, "n": 0, "before": None, "after": None, "change": None, "verdict": "not measured"}
    since = leaf.get("since_previous")
    delta = since["delta"] if since else leaf["deltas"].get(evaluation["candidate"])
    return {
        "leaf": path,
        "n": leaf["n"],
        "before": _bounds(leaf["models"][before]),
        "after": _bounds(leaf["models"][evaluation["candidate"]]),
        "change": _bounds(delta) if delta else None,
        "verdict": since["verdict"] if since else leaf["verdict"],
    }


def _bounds(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in ("value", "low", "high")}


def changelog_page(name: str, version: str, told: Mapping[str, Any]) -> str:
    """A changelog as Markdown. Names of leaves are other people's text and are escaped."""
    since = told["since"]
    lines = [
        f"# {escape(name)} {escape(version)}",
        "",
        f"{'Since ' + escape(since['version'] or since['digest']) if since else 'The first release'}. {_how(told)}",
    ]
    before = "the release before" if since else "the base model"
    for title in ("added", "changed"):
        if told[title]:
            head = f"| Leaf | Items | Before ({before}) | After | Change (points) | |"
            lines += ["", f"## Leaves {title}", "", head, "|---|---|---|---|---|---|", *map(_row, told[title])]
    if told["removed"]:
        lines += ["", "## Leaves removed", "", *(f"* {escape(path)}" for path in told["removed"])]
    if told["unchanged"]:
        lines += ["", "## Unchanged leaves", "", _unchanged(told["unchanged"])]
    lines += ["", f"Gate: {escape(told['gate']['line'])}"]
    return "\n".join(lines) + "\n"


def _how(told: Mapping[str, Any]) -> str:
    if told["how"] == FULL:
        return f"Built from the base model: {escape(told['reason'])}."
    chain = " ← ".join(escape(one["version"] or one["digest"]) for one in reversed(told["chain"]))
    return f"Built on it: only the leaves below were generated and trained, with replay of the others ({chain} ← base)."


def _row(leaf: Mapping[str, Any]) -> str:
    cells = (
        escape(leaf["leaf"]),
        f"{leaf['n']:,}",
        _percent(leaf["before"]),
        _percent(leaf["after"]),
        points(leaf["change"]),
        escape(leaf["verdict"]),
    )
    return f"| {' | '.join(cells)} |"


def _unchanged(told: Mapping[str, Any]) -> str:
    many = f"{len(told['leaves'])} {'leaf' if len(told['leaves']) == 1 else 'leaves'}"
    measured = f"{points(told)} points on {told['n']:,} items" if told["value"] is not None else escape(told["detail"])
    return f"{many} together: {measured}; the gate says {escape(told['verdict'])}."


def points(change: Mapping[str, Any] | None) -> str:
    """A change in percentage points, with its interval where there is one."""
    if change is None or change["value"] is None:
        return "–"
    text = f"{100 * change['value']:+.1f}"
    if change["low"] is None or change["high"] is None:
        return text
    return f"{text} [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]"


def _percent(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["value"] is None:
        return "–"
    if cell["low"] is None or cell["high"] is None:
        return f"{cell['value']:.1%}"
    return f"{cell['value']:.1%} [{cell['low']:.1%}, {cell['high']:.1%}]"


def _paper(package: Path, name: str) -> dict[str, Any]:
    """A JSON object in a package, or an empty one."""
    text = read_paper(package, name)
    try:
        told = json.loads(text) if text is not None else {}
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}

"""The nightly build of a model: what has been merged since the last good release is taught to that release.

    leaves of today  ──┐
                       ├─ nothing new ─▶ nothing is built
    leaves of stable ──┘   added, changed ─▶ an increment on stable        removed … ─▶ a full build from the base

Two channels are aliases in the model registry: ``nightly`` is the newest build that its gate let through, ``stable``
the one that was promoted. An *increment* is the project's own pipeline, wired otherwise (:class:`Nightly`): training
starts from the stable checkpoint, only changed leaves are generated and trained, with replay of the rows that stable
was taught for the others, and all leaves are measured beside stable. Everything that tells one build from another
(stable's digest, the leaves, what changed) stands in fields and inputs of steps, so a second call reuses everything, a
killed one goes on, and a failed gate leaves both channels where they were.

Small losses could add up over increments, so after ``nightly.increments`` of them a full build is made. So it is where
a leaf was removed (what a model was taught can only be left out by starting again), where the base model is another,
and where nobody knows any more what stable was taught.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ilab import resolvers
from ilab.actions import Build, prepare
from ilab.config import Loaded
from ilab.core.lease import Held, TakenError
from ilab.core.pipeline import Pipeline
from ilab.core.run import Engine
from ilab.core.store import Store
from ilab.errors import InputError
from ilab.packaging.channels import STABLE
from ilab.packaging.previous import REGISTRY
from ilab.resolvers import registry_of
from ilab.transfer.stores import open_store

if TYPE_CHECKING:
    from ilab.packaging.registry import Entry
    from ilab.packaging.stages import Stages

How = Literal["nothing", "increment", "full"]
REWIRED = ("taxonomy", "generate", "mix-knowledge", "train-phase-1", "mix-skills", "previous", "gate", "package")


@dataclass(frozen=True)
class Since:
    """Today's leaves beside those of the stable release, sorted. ``prints``: today's leaves to a hash of each."""

    prints: Mapping[str, str]
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def new(self) -> tuple[str, ...]:
        """What a build on top of the release has to teach."""
        return tuple(sorted((*self.added, *self.changed)))

    @property
    def unchanged(self) -> tuple[str, ...]:
        return tuple(sorted(self.prints.keys() - set(self.new)))

    def told(self) -> dict[str, list[str]]:
        names = ("added", "changed", "removed", "unchanged")
        return {name: list(getattr(self, name)) for name in names}


def since(today: Mapping[str, str], before: Mapping[str, str]) -> Since:
    """What ``today`` has that was not there, or was something else, ``before``; both map leaves to hashes."""
    return Since(
        today,
        added=tuple(sorted(today.keys() - before.keys())),
        changed=tuple(sorted(leaf for leaf in today.keys() & before.keys() if today[leaf] != before[leaf])),
        removed=tuple(sorted(before.keys() - today.keys())),
    )


@dataclass(frozen=True)
class Decision:
    """What tonight's build is: ``how``, the ``reason`` for people, and the version it gets.

    ``version`` of a build that makes nothing is the one that has today's leaves already.
    """

    how: How
    reason: str
    name: str
    version: str
    stable: Entry | None
    since: Since

    def told(self) -> dict[str, Any]:
        stable = self.stable.version if self.stable else None
        return {
            "how": self.how,
            "reason": self.reason,
            "name": self.name,
            "version": self.version,
            "stable": stable,
            "leaves": self.since.told(),
        }


@dataclass(frozen=True)
class Nightly:
    """A pipeline wired for one night: a changelog in any case, and for an increment what the module says.

    Raises ``InputError`` for a pipeline that has not the steps that are wired otherwise.
    """

    decision: Decision
    replay: float

    def cut(self, pipeline: Pipeline) -> Pipeline:
        steps = {name: dict(body) for name, body in pipeline.steps.items()}
        if missing := [name for name in REWIRED if name not in steps]:
            raise InputError(
                f"a nightly build wires these steps, and this pipeline has none of that name: {', '.join(missing)}",
                where=pipeline.path,
                hint="begin the pipeline file with `extends: instructlab`",
            )
        steps["changelog"] = self._changelog()
        steps["package"] = _with(steps["package"], gate="changelog")
        if self.decision.how == "increment":
            self._on_stable(steps)
        return replace(pipeline, steps=steps)

    def values(self) -> dict[str, Any]:
        return {}

    def parameters(self) -> dict[str, Any]:
        """The pipeline parameters that are not the person's to choose here."""
        return {
            **_own(_release(self.decision)),
            "output_model_version": self.decision.version,
        }

    def _changelog(self) -> dict[str, Any]:
        seen = self.decision.since
        return {
            "step": "changelog",
            "release": "$previous_model",
            "how": self.decision.how,
            "reason": self.decision.reason,
            "added": list(seen.added),
            "changed": list(seen.changed),
            "removed": list(seen.removed),
            "leaves": dict(seen.prints),
            "from": {"evaluation": "final-evaluation", "gate": "gate"},
        }

    def _on_stable(self, steps: dict[str, dict[str, Any]]) -> None:
        unchanged = list(self.decision.since.unchanged)
        steps["changed"] = {"step": "pick", "leaves": list(self.decision.since.new), "from": {"taxonomy": "taxonomy"}}
        steps["start"] = {"step": "select", "by": "last", "from": {"candidates": "previous"}}
        steps["earlier"] = {"step": "earlier", "release": _release(self.decision), "leaves": unchanged}
        # Phase 2 repeats what was taught before tonight, and what phase 1 teaches tonight.
        steps["earlier-and-phase-1"] = {
            "step": "stack",
            "from": {"datasets": {"earlier": "earlier", "phase-1": "mix-knowledge"}},
        }
        steps["generate"] = _with(steps["generate"], taxonomy="changed")
        steps["mix-knowledge"] = {**_with(steps["mix-knowledge"], earlier="earlier"), "replay": self.replay}
        steps["train-phase-1"] = _with(steps["train-phase-1"], base="start")
        steps["mix-skills"] = {**_with(steps["mix-skills"], earlier="earlier-and-phase-1"), "replay": self.replay}


def _with(body: Mapping[str, Any], **wired: str) -> dict[str, Any]:
    return {**body, "from": {**(body.get("from") or {}), **wired}}


def decide(loaded: Loaded, parameters: Mapping[str, Any], *, from_base: bool = False) -> Decision:
    """What tonight's build is. Reads the taxonomy and its documents; generates and trains nothing.

    Raises ``InputError`` for parameters that a nightly build sets itself.
    """
    if given := sorted({"previous_model", "taxonomy_base"} & parameters.keys()):
        raise InputError(f"a nightly build sets {given[0]} itself", where=f"-p {given[0]}", hint="leave it out")
    plain = prepare(loaded, {**parameters, **_own("")})
    store = open_store(loaded)
    name = str(plain.given["output_model_name"].value)
    stages = stages_of(loaded)
    stable = _stable(loaded, stages, name)
    today = _prints(plain, store)
    before = (_taught(stable, store) if stable else None) or {}
    seen = since(today, before)
    if stable and before and not (seen.new or seen.removed or from_base):
        reason = f"every leaf is as {name} {stable.version} ({STABLE}) was taught it"
        return Decision("nothing", reason, name, stable.version, stable, seen)
    why = _why_full(plain, stable, seen, from_base, loaded.config.nightly.increments)
    if why is None and stable is not None:
        why = _lost(stable, store) if before else f"nobody knows any more what {stable.version} was taught"
    first = _bumped(stable.version, seen, from_base) if stable else str(plain.given["output_model_version"].value)
    how: How = "full" if why else "increment"
    decision = Decision(how, why or "leaves changed", name, first, stable, seen)
    return _numbered(decision, loaded, parameters, stages)


def _numbered(decision: Decision, loaded: Loaded, parameters: Mapping[str, Any], stages: Stages) -> Decision:
    """The decision with a version that no other build has; nothing to build where a version has this very model."""
    taken = {entry.version: entry for entry in stages.registry.list() if entry.name == decision.name}
    version = decision.version
    if version not in taken:
        return decision
    steps = build_of(loaded, parameters, decision).plan.steps
    models = steps["package"].inputs["models"]
    tuned = models if isinstance(models, str) else models["tuned"]
    while version in taken:
        entry = taken[version]
        if entry.lineage.get(tuned) == steps[tuned].key:
            on = f" on {decision.stable.version} ({STABLE})" if decision.stable else ""
            reason = f"{entry.name} {version} was built{on} from just these leaves"
            reason += f", and recalled: {entry.recalled}" if entry.recalled else ""
            return replace(decision, how="nothing", reason=reason, version=version)
        major, minor, patch = _numbers(version)
        version = f"{major}.{minor}.{patch + 1}"
    return replace(decision, version=version)


def _why_full(plain: Build, stable: Entry | None, seen: Since, from_base: bool, most: int) -> str | None:
    """Why the build has to start from the base model; None where nothing speaks for it."""
    from ilab.packaging.changelog import chain_of

    if stable is None:
        return f"nothing is {STABLE} yet"
    if from_base:
        return "asked for"
    if seen.removed:
        return f"removed: {', '.join(seen.removed)}; only a new start leaves out what was taught"
    if _bases(stable) != [one.step.fields() for one in plain.plan.steps.values() if one.step.type == "base"]:
        return f"the base model is another than that of {stable.version}"
    if (count := len(chain_of(package_of(stable)))) >= most:
        return f"{stable.version} is the end of a chain of {count}, and nightly.increments is {most}"
    return None


def build_of(loaded: Loaded, parameters: Mapping[str, Any], decision: Decision) -> Build:
    """The plan of a decision that builds something."""
    cut = cut_of(loaded, decision)
    return prepare(loaded, {**parameters, **cut.parameters()}, cut)


def cut_of(loaded: Loaded, decision: Decision) -> Nightly:
    """How a decision wires the pipeline."""
    return Nightly(decision, loaded.config.nightly.replay)


def lease_of(loaded: Loaded, name: str) -> Held:
    """The right to make the nightly build of a model: one at a time in a store, on whatever machine. Raises
    ``TakenError`` where somebody else makes one, ``SetupError`` for a store that takes no leases."""
    try:
        return open_store(loaded).lease(f"nightly/{re.sub(r'[^A-Za-z0-9._-]', '_', name)}")
    except TakenError as error:
        raise TakenError(
            f"another nightly build of {name} is under way",
            where=error.where,
            hint="wait for it (ilab pipeline status); this one would do the same work twice",
        ) from error


def stages_of(loaded: Loaded) -> Stages:
    from ilab.packaging.stages import Stages

    return Stages(registry_of(loaded))


def package_of(entry: Entry) -> Path:
    """Where the package lies of a release of which this machine has at least what it tells of itself."""
    return Path(entry.uri.removeprefix("oci:"))


def _release(decision: Decision) -> str:
    """The stable release as a locator, by its version: the alias may move while a run on a cluster waits."""
    return f"{REGISTRY}:{decision.stable.version}" if decision.stable else ""


def _own(release: str) -> dict[str, Any]:
    """The parameters that a nightly build sets itself: what it is held against, and that every leaf counts."""
    return {"previous_model": release, "taxonomy_base": "empty"}


def _prints(plain: Build, store: Store) -> dict[str, str]:
    """Today's leaves to a hash of each, from the steps that only read."""
    from ilab.artifacts import Documents, Taxonomy
    from ilab.sdg.earlier import leaf_prints

    engine = Engine(store, plain.where)
    found = {}
    try:
        for name in ("taxonomy", "documents"):
            record = engine.run_step(plain.plan, plain.plan.named(name).name, latest=False)
            found[name] = store.contents(record)
    finally:
        engine.close()
    return leaf_prints(Taxonomy(found["taxonomy"]), Documents(found["documents"]))


def _stable(loaded: Loaded, stages: Stages, name: str) -> Entry | None:
    """The stable release, with what its package tells of itself on this machine."""
    if STABLE not in stages.aliases(name):
        return None
    entry = stages.find(name, STABLE)
    package = resolvers.package_of(loaded, entry, whole=False)
    if not package.is_dir():
        raise InputError(
            f"the package of {name} {entry.version} ({STABLE}) is gone",
            where=entry.uri.removeprefix("oci:"),
            hint=f"build that version again, or point {STABLE} to another: ilab registry alias {name} VERSION {STABLE}",
        )
    return entry.model_copy(update={"uri": f"oci:{package}"})


def _taught(stable: Entry, store: Store) -> dict[str, str] | None:
    """What each leaf of the stable release was, by hash: as its changelog says, else as the store still has it."""
    from ilab.packaging.changelog import changelog_in
    from ilab.sdg.earlier import prints_of

    told: dict[str, str] | None = changelog_in(package_of(stable)).get("leaves")
    return told or prints_of(stable.lineage, store)


def _bumped(version: str, seen: Since, from_base: bool) -> str:
    """The next version: the last number for edited leaves, the middle one where leaves came or went or all is new."""
    major, minor, patch = _numbers(version)
    return f"{major}.{minor + 1}.0" if seen.added or seen.removed or from_base else f"{major}.{minor}.{patch + 1}"


def _numbers(version: str) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in re.split(r"[-+]", version)[0].split("."))
    return major, minor, patch


def _bases(stable: Entry) -> list[Any]:
    """The fields of the steps that made the base model of a release."""
    from ilab.packaging.changelog import steps_of

    return [step["fields"] for step in steps_of(package_of(stable)) if step["type"] == "base"]


def _lost(stable: Entry, store: Store) -> str | None:
    """What is missing of the rows that are to be replayed; None where they are there."""
    from ilab.sdg.earlier import find_earlier

    try:
        find_earlier(stable.version, stable.lineage, store)
    except InputError as error:
        return error.message
    return None


def write_papers(told: Mapping[str, Any], model: tuple[str, str], folder: Path) -> None:
    """Write the changelog of a ``model`` (name, version) beside its report: JSON and page."""
    from ilab.core.files import write_json, write_text
    from ilab.packaging.changelog import NAME, PAGE, changelog_page

    write_json(folder / NAME, dict(told))
    write_text(folder / PAGE, changelog_page(*model, told))

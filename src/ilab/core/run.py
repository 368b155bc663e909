"""The local executor: decide what each step needs, then do it, independent steps at once.

A step is *reused* when its record exists, *linked* when its inputs have new keys but the contents of an earlier run
(early cut-off: no retraining for a comment), and *run* otherwise. ``preview`` says so before anything happens, and
why: a field-level difference from the newest record of that name. Both walk the same ``Plan``; so would a cluster.
"""

from __future__ import annotations

import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ilab.config import Where
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.core.pipeline import Plan, Planned, Wiring, sources
from ilab.core.step import Artifact, Site, Step
from ilab.core.store import Partial, RecordFile, Store, disk_error
from ilab.errors import IlabError, InputError, SetupError, Stopped

State = Literal["reuse", "link", "run", "maybe"]
TOOLS = ("ilab", "torch", "transformers", "tokenizers", "safetensors", "pydantic")


@dataclass(frozen=True)
class Preview:
    """What would happen to one step: ``maybe`` means run unless ``unless`` turn out unchanged.

    ``digest`` is that of the result's contents where they exist already.
    """

    planned: Planned
    state: State
    why: str
    unless: tuple[str, ...] = ()
    expected: Mapping[str, float] = field(default_factory=dict)
    digest: str | None = None


@dataclass
class Engine:
    """A store, the settings about where, and a bus: all that running a plan needs."""

    store: Store
    where: Where
    bus: Bus = field(default_factory=Bus)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._memos: dict[str, Memo] = {}
        self._lock = threading.Lock()

    def memo(self, name: str) -> Memo:
        with self._lock:
            if name not in self._memos:
                self._memos[name] = Memo(self.store.memo(name))
            return self._memos[name]

    def close(self) -> None:
        for memo in self._memos.values():
            memo.close()
        self._memos.clear()
        self.store.close()

    # -- what would happen ---------------------------------------------------------------------------------------

    def preview(self, plan: Plan, force: frozenset[str] = frozenset()) -> list[Preview]:
        """Reuse, run or maybe for every step, with the reason. Makes nothing."""
        previews: dict[str, Preview] = {}
        for planned in plan.steps.values():
            previews[planned.name] = self._preview(plan, planned, previews, force)
        return list(previews.values())

    def _preview(self, plan: Plan, planned: Planned, earlier: Mapping[str, Preview], force: frozenset[str]) -> Preview:
        newest = self.store.latest(planned.name)
        record = self.store.record(planned.step.type, planned.key)
        if planned.name in force:
            return Preview(planned, "run", "asked for", expected=self._expect(plan, planned, newest))
        digests = by_input(planned.inputs, lambda name: earlier[name].digest)
        why = difference(planned, newest, digests)
        if record is not None:
            if not self._holds(plan, planned, record):
                gone = "what it did outside the store is gone"
                return Preview(planned, "run", gone, expected=self._expect(plan, planned, newest))
            changed = newest is not None and newest.key != planned.key
            why = f"made already ({why})" if changed else "nothing it depends on has changed"
            return Preview(planned, "reuse", why, digest=record.digest)
        changing = tuple(name for name in sources(planned.inputs) if earlier[name].state in ("run", "maybe"))
        if not changing:
            older = self.store.same_contents(planned.step, digests)
            if older is not None:
                return Preview(planned, "link", f"{why}: its result holds", digest=older.digest)
            return Preview(planned, "run", why, expected=self._expect(plan, planned, newest))
        if newest is not None and _same_but_inputs(planned, newest):
            return Preview(planned, "maybe", why, tuple(dict.fromkeys(changing)), self._expect(plan, planned, newest))
        return Preview(planned, "run", why, expected=self._expect(plan, planned, newest))

    def _expect(self, plan: Plan, planned: Planned, newest: RecordFile | None) -> dict[str, float]:
        expected: dict[str, float] = {}
        if newest is not None and not newest.linked_to:
            expected["seconds"] = newest.seconds
        site = self._site(plan, planned.name, planned.step.type, "preview")
        inputs = _Opened(planned.inputs, lambda wired: self._open_inputs(plan, planned.name, wired))
        try:
            return {**expected, **planned.step.expect(inputs, site)}
        except IlabError:  # what it looks at is not made yet: what it will cost cannot be known before
            return expected

    def _holds(self, plan: Plan, planned: Planned, record: RecordFile) -> bool:
        if type(planned.step).still_holds is Step.still_holds:  # nothing to look at, so nothing to fetch
            return True
        out = planned.step.makes()(self.store.contents(record, self.bus.for_step(planned.name)))
        return planned.step.still_holds(out, self._site(plan, planned.name, record.type, record.key))

    # -- doing it ------------------------------------------------------------------------------------------------

    def run(self, plan: Plan, force: frozenset[str] = frozenset()) -> dict[str, RecordFile]:
        """Run a plan. Returns the record of every step. Raises the first error after running steps have ended."""
        done: dict[str, RecordFile] = {}
        waiting = dict(plan.steps)
        running: dict[Future[RecordFile], str] = {}
        failure: BaseException | None = None
        with ThreadPoolExecutor(max_workers=self.where.jobs, thread_name_prefix="step") as pool:
            while waiting or running:
                if failure is None and not self.stop.is_set():
                    for name, planned in list(waiting.items()):
                        twin = any(plan.steps[other].key == planned.key for other in running.values())
                        ready = not twin and all(s in done for s in sources(planned.inputs))
                        if ready and len(running) < self.where.jobs:
                            running[pool.submit(self.run_step, plan, name, name in force)] = name
                            del waiting[name]
                if not running:
                    break
                for future in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    error = future.exception()
                    if error is None:
                        done[name] = future.result()
                    elif failure is None or (isinstance(failure, Stopped) and not isinstance(error, Stopped)):
                        failure = error
        if failure is not None:
            raise failure
        if self.stop.is_set() and waiting:
            raise Stopped("stopped", hint="everything finished so far is kept; run the same command to go on")
        return done

    def run_step(self, plan: Plan, name: str, force: bool = False, *, latest: bool = True) -> RecordFile:
        """Reuse, link or run one step whose inputs exist. ``latest``: let the link for people point to the result."""
        planned = plan.named(name)
        type_, key = planned.step.type, planned.key
        emit = self.bus.for_step(name)
        record = self.store.record(type_, key)
        if record is not None and not force and self._holds(plan, planned, record):
            self.store.share(record)
            if latest:
                self.store.point_latest(name, record)
            self.store.clean_partial(type_, key)  # a run killed right after publishing leaves one
            emit.finished(state="reuse", key=key, counts=record.counts)
            return record
        draft = self._draft(plan, planned)
        try:
            older = None if force or record is not None else self.store.same_contents(planned.step, draft.input_digests)
            if older is not None:
                record = self.store.link(draft, older)
                emit.finished(state="link", key=key, counts=record.counts)
            else:
                record = self._make(plan, planned, draft)
        except OSError as error:
            raise disk_error(error, self.store.root) from error
        if latest:
            self.store.point_latest(name, record)
        return record

    def _make(self, plan: Plan, planned: Planned, draft: RecordFile) -> RecordFile:
        name, step = planned.name, planned.step
        emit = self.bus.for_step(name)
        inputs = self._open_inputs(plan, name, planned.inputs)
        with self.store.writing(step.type, planned.key) as partial:
            emit.started(type=step.type, key=planned.key)
            began, clock = time.time(), time.monotonic()
            site = self._site(plan, name, step.type, planned.key)
            run: Callable[..., dict[str, int] | None] = getattr(step, "run")  # noqa: B009 - each step types its own
            counts = run(**inputs, out=step.makes()(partial.artifact), site=site) or {}
            for memo in self._memos.values():
                memo.flush()
            seconds = round(time.monotonic() - clock, 3)
            made = draft.model_copy(update={"counts": counts, "started": began, "seconds": seconds})
            record = self.publish(partial, made)
        self.store.clean_partial(step.type, planned.key)
        emit.finished(state="run", key=planned.key, counts=counts, seconds=record.seconds)
        return record

    def publish(self, partial: Partial, record: RecordFile) -> RecordFile:
        """Put what a step made into the store."""
        return self.store.publish(partial, record)

    def _draft(self, plan: Plan, planned: Planned) -> RecordFile:
        found = {
            value: {"locator": plan.found[value].locator, "revision": plan.found[value].revision}
            for name in planned.step.resolvable()
            if (value := getattr(planned.step, name)) in plan.found
        }
        return RecordFile(
            step=planned.name,
            type=planned.step.type,
            version=planned.step.version,
            key=planned.key,
            fields=planned.step.fields(),
            inputs=dict(planned.input_keys),
            input_digests=by_input(planned.inputs, lambda name: self._record_of(plan, name).digest),
            digest="",
            counts={},
            found=found,
            tools=dict(tool_versions()),
        )

    def _site(self, plan: Plan, name: str, type_: str, key: str) -> Site:
        work = self.store.directory(type_, f"{key}.partial") / "work"
        return Site(
            where=self.where,
            work=work,
            found=plan.found,
            emit=self.bus.for_step(name),
            memo=self.memo,
            stopping=self.stop.is_set,
            history=lambda: self._history(plan, name),
            address=self.store.address,
            fetch=lambda address: self.store.folder_at(address, self.bus.for_step(name)),
        )

    def _history(self, plan: Plan, name: str) -> list[dict[str, Any]]:
        before = [step for step in plan.until(name).steps if step != name]
        return [self._record_of(plan, step).model_dump(mode="json") for step in before]

    def _record_of(self, plan: Plan, name: str) -> RecordFile:
        planned = plan.named(name)
        record = self.store.record(planned.step.type, planned.key)
        if record is None:
            raise InputError(f"step {name} has not been made yet", hint=f"run: ilab run --until {name}")
        return record

    def _open_inputs(self, plan: Plan, step: str, wiring: Wiring) -> dict[str, Any]:
        """Inputs of ``step``, by their names."""

        def opened(name: str) -> Artifact:
            record = self._record_of(plan, name)
            return plan.steps[name].step.makes()(self.store.contents(record, self.bus.for_step(step)))

        return by_input(wiring, opened)


class _Opened(Mapping[str, Any]):
    """A step's inputs, each opened when it is looked at: a forecast does without those that it does not need."""

    def __init__(self, wiring: Wiring, open_: Callable[[Wiring], dict[str, Any]]) -> None:
        self._wiring = wiring
        self._open = open_

    def __getitem__(self, name: str) -> Any:
        return self._open({name: self._wiring[name]})[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._wiring)

    def __len__(self) -> int:
        return len(self._wiring)


def by_input(wiring: Wiring, value: Callable[[str], Any]) -> dict[str, Any]:
    """``value`` of every step that an input is wired to, in the shape of the wiring."""
    return {
        given: value(source) if isinstance(source, str) else {key: value(name) for key, name in source.items()}
        for given, source in wiring.items()
    }


def difference(planned: Planned, newest: RecordFile | None, digests: Mapping[str, Any]) -> str:
    """Why a step has no result yet: its fields and inputs against the newest record of its name.

    ``digests`` are those of the inputs' contents, ``None`` where an input does not exist yet: an input with another key
    and the same contents is no reason, unless there is no other.
    """
    if newest is None:
        return "never made"
    parts: list[str] = []
    if newest.type != planned.step.type:
        parts.append(f"type {newest.type} → {planned.step.type}")
    elif newest.version != planned.step.version:
        parts.append(f"step version {newest.version} → {planned.step.version}")
    parts += _field_changes("", newest.fields, planned.step.fields(), planned)
    same: list[str] = []
    for name in {**newest.inputs, **planned.input_keys}:
        if newest.inputs.get(name) == planned.input_keys.get(name):
            continue
        if name not in newest.inputs:
            parts.append(f"input {name} is new")
        elif name in digests and newest.input_digests.get(name) == digests[name]:
            same.append(name)
        else:
            parts.append(f"input {name} changed")
    if same and not parts:
        return f"the same contents of {', '.join(same)} again"
    return "; ".join(parts) or "its result was removed"


def _field_changes(path: str, old: Any, new: Any, planned: Planned) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            change
            for name in sorted({*old, *new})
            for change in _field_changes(f"{path}.{name}".lstrip("."), old.get(name), new.get(name), planned)
        ]
    if old == new:
        return []
    if path in planned.step.resolvable():
        return [f"{path} has other contents"]
    return [f"{path}: {old!r} → {new!r}" if "" in (old, new) else f"{path}: {old} → {new}"]


def _same_but_inputs(planned: Planned, newest: RecordFile) -> bool:
    return (newest.type, newest.version, newest.fields) == (
        planned.step.type,
        planned.step.version,
        planned.step.fields(),
    )


def run_folder(store: Store) -> Path:
    """A new folder for the events and the report of one run, named so that the newest sorts last."""
    runs = store.root / "runs"
    runs.mkdir(exist_ok=True)
    for count in range(1, 1000):
        folder = runs / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}.{count:03d}{store.label}"
        with suppress(FileExistsError):  # another run began in the same second
            folder.mkdir()
            return folder
    raise SetupError("too many runs began within a second", where=str(runs))


@lru_cache(maxsize=1)
def tool_versions() -> dict[str, str]:
    """Versions of what made a result; for the record, never part of a key."""
    versions = {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions

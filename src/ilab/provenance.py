"""What was generated, from what and by what: the runs of a store, and the whole history of one sample.

    store ──▶ Run (newest first) ──▶ entries: samples and refused rows ──▶ the history of one of them

Everything is read from records and artifacts that a build leaves anyway; nothing is written for it. What is no longer
in the store (``ilab pipeline gc``) is told as missing, and the rest is still told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ilab.artifacts import Dataset, Documents, Items, Samples, Taxonomy
from ilab.core.store import RecordFile, Store
from ilab.data import Chunk, Item, Leaf, Rejected, Sample, SeedExample
from ilab.errors import InputError
from ilab.plugins import nearest
from ilab.sdg.inputs import input_rows
from ilab.sdg.stage import find_flow, found_flow, tokens_of

Verdict = Literal["accepted", "rejected"]
Entry = Sample | Rejected
MODELS = ("train", "select", "package", "register")  # the steps whose results carry what a dataset taught


@dataclass(frozen=True)
class Run:
    """One result of data generation, with what it was made from. Everything is read when it is first asked for."""

    store: Store
    record: RecordFile

    @property
    def path(self) -> Path:
        return self.store.contents(self.record)

    @property
    def is_preview(self) -> bool:
        return bool(self.record.fields.get("preview"))

    @property
    def flow(self) -> str:
        found = self.record.found.get(str(self.record.fields.get("flow")), {})
        return found.get("locator") or str(self.card.get("flow", ""))

    @property
    def teacher(self) -> str:
        """The served name, empty where samples were made by rule."""
        return str(self.record.fields.get("teacher") or "")

    @property
    def taxonomy(self) -> tuple[str, str]:
        """Where the taxonomy lay, and its commit if it had one."""
        record = self._input("taxonomy")
        found = next(iter(record.found.values()), {}) if record else {}
        return found.get("locator", ""), found.get("revision", "")

    @cached_property
    def samples(self) -> list[Sample]:
        return Samples(self.path).samples()

    @cached_property
    def rejected(self) -> list[Rejected]:
        return Samples(self.path).rejected()

    @cached_property
    def card(self) -> dict[str, Any]:
        return Samples(self.path).card()

    @cached_property
    def leaves(self) -> dict[str, Leaf]:
        """By path; empty when the store no longer has the taxonomy."""
        record = self._input("taxonomy")
        found = Taxonomy(self.store.contents(record)).leaves() if record else []
        return {leaf.path: leaf for leaf in found}

    @cached_property
    def chunks(self) -> dict[tuple[str, str], Chunk]:
        """By leaf and id, in document order; empty when the store no longer has the documents."""
        record = self._input("documents")
        found = Documents(self.store.contents(record)).chunks() if record else []
        return {(chunk.leaf, chunk.id): chunk for chunk in found}

    @cached_property
    def items(self) -> list[Item]:
        """The held-out questions that the samples were kept apart from; empty when the store no longer has them."""
        record = self._input("held_out", "items")
        return Items(self.store.contents(record)).items() if record else []

    def entries(self) -> Iterator[Entry]:
        """Samples first, then the rows that were refused."""
        yield from self.samples
        yield from self.rejected

    def facts(self) -> dict[str, Any]:
        """The run as JSON: one line of ``ilab data list``."""
        locator, revision = self.taxonomy
        return {
            "run": self.record.key,
            "started": self.record.started,
            "taxonomy": locator,
            "revision": revision,
            "flow": self.flow,
            "teacher": self.teacher,
            "preview": self.is_preview,
            "instructions": self.record.fields.get("instructions"),
            "leaves": len(self.card["leaves"]),
            "accepted": self.record.counts.get("accepted", 0),
            "rejected": self.record.counts.get("rejected", 0),
            "path": str(self.path),
        }

    def _input(self, name: str, type_: str = "") -> RecordFile | None:
        key = self.record.inputs.get(name)
        return self.store.record(type_ or name, key) if isinstance(key, str) else None


@dataclass(frozen=True)
class Filter:
    """Which entries are meant. ``leaf`` is a path or its last parts; ``grep`` any text, in either case of letters."""

    leaf: str = ""
    block: str = ""
    verdict: Verdict | None = None
    grep: str = ""


def runs(store: Store) -> list[Run]:
    """All results of data generation, newest first."""
    found = [Run(store, record) for record in store.records() if record.type == "generate"]
    return sorted(found, key=lambda run: (run.record.started, run.record.key), reverse=True)


def find_run(store: Store, name: str = "") -> Run:
    """The run whose key begins with ``name``; without one the newest. Raises InputError for none or several."""
    found = runs(store)
    if not found:
        raise InputError("nothing has been generated yet", where=str(store.root), hint="run: ilab data generate")
    if not name:
        return found[0]
    named = [run for run in found if run.record.key.startswith(name)]
    if len(named) == 1:
        return named[0]
    raise InputError(
        f"{len(named)} runs begin with {name!r}" if named else f"there is no run {name!r}",
        where=str(store.root),
        hint="ilab data list shows the runs; a few first characters of one are enough",
    )


def select(run: Run, wanted: Filter) -> list[Entry]:
    """The entries of ``run`` that ``wanted`` means, in their order. Raises InputError for an unknown leaf or block."""
    leaves = set(leaves_named(run, wanted.leaf)) if wanted.leaf else None
    if wanted.block:
        blocks = {block_of(entry) for entry in run.entries()}
        if wanted.block not in blocks:
            raise InputError(f"no row came from a block {wanted.block!r}", hint=nearest(wanted.block, sorted(blocks)))
    text = wanted.grep.casefold()
    return [
        entry
        for entry in run.entries()
        if (leaves is None or entry.leaf in leaves)
        and (not wanted.block or block_of(entry) == wanted.block)
        and (wanted.verdict is None or verdict_of(entry) == wanted.verdict)
        and (not text or text in shown_text(entry).casefold())
    ]


def leaves_named(run: Run, name: str) -> list[str]:
    """The paths of the leaves that ``name`` means: one, all below a folder, or one by the last parts of its path."""
    known = list(run.card["leaves"])
    name = name.strip("/")
    found = [path for path in known if path == name or path.startswith(f"{name}/") or path.endswith(f"/{name}")]
    if not found:
        parts = {path if "/" in name else path.rpartition("/")[2] for path in known}
        raise InputError(f"this run has no leaf {name!r}", hint=nearest(name, sorted(parts)))
    return found


def verdict_of(entry: Entry) -> Verdict:
    return "accepted" if isinstance(entry, Sample) else "rejected"


def block_of(entry: Entry) -> str:
    """The block that wrote a sample, or that refused a row."""
    return entry.origin.block if isinstance(entry, Sample) else entry.block


def question_of(entry: Entry) -> str:
    return entry.question if isinstance(entry, Sample) else str(entry.row.get("question") or "")


def answer_of(entry: Entry) -> str:
    """The answer; of a refused row that has none, what the teacher wrote."""
    if isinstance(entry, Sample):
        return entry.answer
    return str(entry.row.get("answer") or entry.row.get("raw") or "")


def shown_text(entry: Entry) -> str:
    """All that a person reads of an entry, for searching."""
    reason = "" if isinstance(entry, Sample) else entry.reason
    return "\n".join((entry.id, question_of(entry), answer_of(entry), reason))


def find_entry(store: Store, identity: str, run: str = "") -> tuple[Run, Entry]:
    """The entry called ``identity``, or the only one whose id begins so, in the newest run that has one.

    The id of a training row (``replay/ID``, ``ID~2``, ``ID~raft``) leads to its sample. Raises InputError for none or
    several.
    """
    identity = re.sub(r"~(raft)?\d*$", "", identity.removeprefix("replay/"))
    for candidate in [find_run(store, run)] if run else runs(store):
        exact = [entry for entry in candidate.entries() if entry.id == identity]
        if exact:
            return candidate, exact[0]
        begun = {entry.id: entry for entry in candidate.entries() if entry.id.startswith(identity)}
        if len(begun) == 1:
            return candidate, next(iter(begun.values()))
        if begun:
            some = "".join(f"\n       {name}" for name in list(begun)[:5])
            raise InputError(
                f"{len(begun)} samples and refused rows begin with {identity!r}", hint=f"give more of one id:{some}"
            )
    raise InputError(
        f"no sample or refused row is called {identity!r}",
        hint="ilab data show prints the ids; a unique beginning will do",
    )


def explain(run: Run, entry: Entry, base: Path) -> dict[str, Any]:
    """The history of one sample or refused row as JSON. ``base`` is the folder that a flow's path is relative to."""
    origin = entry.origin if isinstance(entry, Sample) else None
    leaf = run.leaves.get(entry.leaf)
    seed = seed_of(leaf, entry.id, run.chunks.values()) if leaf else None
    chunk = chunk_of(run, entry)
    evidence = (origin.evidence if origin else entry.row.get("evidence") if isinstance(entry, Rejected) else None) or ""
    datasets = _datasets(run.store, entry.id)
    block = block_of(entry)
    return {
        "id": entry.id,
        "verdict": verdict_of(entry),
        "reason": entry.reason if isinstance(entry, Rejected) else None,
        "question": question_of(entry),
        "answer": answer_of(entry),
        "leaf": entry.leaf,
        "place": str((seed or leaf).place) if leaf else None,
        "from_seed": seed is not None,
        "document": _document(chunk, evidence),
        "flow": origin.flow if origin else run.flow,
        "block": block,
        "prompt": _prompt(run, entry.leaf, block, base),
        "prompt_digest": origin.prompt if origin else None,
        "teacher": (origin.teacher if origin else run.teacher) or None,
        "reported": origin.reported if origin else None,
        "sampling": origin.sampling if origin else None,
        "usage": origin.usage if origin else None,
        "verdicts": [verdict.model_dump(mode="json") for verdict in origin.verdicts] if origin else [],
        "run": run.facts(),
        "datasets": datasets,
        "models": _models(run.store, {dataset["key"] for dataset in datasets}),
    }


def seed_of(leaf: Leaf, identity: str, chunks: Iterable[Chunk] = ()) -> SeedExample | None:
    """The seed example of ``leaf`` that an id names, or None where it names none (rules use all of them at once)."""
    labels = seed_labels(leaf, chunks)
    return next((seed for label, seed in labels.items() if f"/{label}/" in f"{identity}/"), None)


def seed_labels(leaf: Leaf, chunks: Iterable[Chunk] = ()) -> dict[str, SeedExample]:
    """What each seed example of ``leaf`` is called in ids (``seed-9c41ab02``)."""
    own = [chunk for chunk in chunks if chunk.leaf == leaf.path][:1]
    labels = {}
    for seed in leaf.seeds:
        for row in input_rows("seed", leaf.model_copy(update={"seeds": (seed,)}), own):
            labels[row.id.rpartition("/")[2]] = seed
    return labels


def chunk_of(run: Run, entry: Entry) -> Chunk | None:
    """The passage that an entry was made from; a refused row names it in its id."""
    if isinstance(entry, Sample):
        name = entry.origin.chunk
    else:
        match = re.match(r"#([^/]+)", entry.id.removeprefix(entry.leaf))
        name = match[1] if match else None
    return run.chunks.get((entry.leaf, name)) if name else None


def marked(text: str, evidence: str) -> str:
    """``text`` with the words of ``evidence`` between ⟦ and ⟧, whatever the white space between them."""
    words = evidence.split()
    if not words:
        return text
    pattern = r"\s+".join(re.escape(word) for word in words)
    return re.sub(pattern, lambda match: f"⟦{match[0]}⟧", text, count=1)


def _document(chunk: Chunk | None, evidence: str) -> dict[str, Any] | None:
    if chunk is None:
        return None
    return {
        "source": chunk.source,
        "id": chunk.document,
        "page": chunk.page,
        "span": list(chunk.span),
        "heading": list(chunk.heading),
        "passage": marked(chunk.text, evidence),
        "evidence": evidence or None,
    }


def _prompt(run: Run, leaf: str, block: str, base: Path) -> dict[str, Any] | None:
    """The texts of the block's prompt, if the flow is still the one that was used; None for a block without any."""
    try:
        digest = str(run.record.fields.get("flow"))
        found = find_flow(run.flow, base, tokens_of(digest))
    except InputError:
        return {"missing": f"the flow {run.flow!r} is no longer there"}
    if found.digest != digest:
        return {"missing": f"the flow {run.flow!r} has changed since"}
    flows = found_flow(found).flows
    kind = run.card["leaves"].get(leaf, {}).get("kind")
    branches = flows[kind].branches if kind in flows else ()
    named = {one.name: one for branch in branches for one in branch.blocks}.get(block)
    if named is None or not named.files:
        return None
    texts = {name: getattr(named, name, "") for name in ("system", *named.files)}
    return {name: text for name, text in texts.items() if text and isinstance(text, str)}


def _datasets(store: Store, identity: str) -> list[dict[str, Any]]:
    """The datasets in which a sample has rows, with how many."""
    found = []
    for record in store.records():
        if record.type != "mix" or record.linked_to:
            continue
        count = sum(row.sample == identity for row in Dataset(store.contents(record)).rows())
        if count:
            found.append({"step": record.step, "key": record.key, "rows": count})
    return found


def _models(store: Store, datasets: set[str]) -> list[dict[str, str]]:
    """What was trained on ``datasets``, and what was made of that; a later mix only takes its weights from it."""
    records = [record for record in store.records() if record.type != "mix"]
    reached = set(datasets)
    made: dict[str, RecordFile] = {}
    grown = True
    while grown:
        new = [one for one in records if one.key not in made and reached & set(_keys(one.inputs))]
        made |= {one.key: one for one in new}
        reached |= {one.key for one in new}
        grown = bool(new)
    ordered = sorted(made.values(), key=lambda one: (one.started, one.key))
    return [{"step": one.step, "key": one.key} for one in ordered if one.type in MODELS]


def _keys(inputs: Mapping[str, Any]) -> Iterator[str]:
    for value in inputs.values():
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, str):
            yield value

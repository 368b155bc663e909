"""What a release was taught already: the part of the taxonomy that a build on top of it need not make again.

A build that starts from a release generates and trains the leaves that changed, and repeats (*replays*) some of the
rows that the release was taught for the others, so that they are not forgotten. These rows lie in the store, in the
mixes of the build that made the release; a release that was itself built on another one hands on what it had from
that. A row that a mix had from another mix counts once. What a recipe adds is not repeated: every build mixes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ilab.artifacts import Dataset, Documents, Taxonomy
from ilab.core.step import Counts, Found, fingerprint
from ilab.core.store import RecordFile, Store
from ilab.data import TrainingRow
from ilab.errors import InputError

EARLIER, MIX = "earlier", "mix"  # the types of the steps whose rows a release was taught
HINT = "make the build from the base model: ilab pipeline nightly --from-base"


def find_earlier(locator: str, lineage: Mapping[str, str], store: Store) -> Found:
    """The rows that a release was taught, by the contents of the datasets in its ``lineage`` (step name to key).

    Raises ``InputError`` where the store has them no more.
    """
    known = dict(_records(lineage, (EARLIER, MIX), store))
    if not any(record.type == MIX for record in known.values()):
        raise InputError(
            f"the samples that {locator} was taught are no longer in the store", where=str(store.root), hint=HINT
        )
    # What the release had from its own predecessor comes first, then its mixes, in the order of their names.
    ordered = sorted(known.items(), key=lambda entry: (entry[1].type != EARLIER, entry[0]))
    paths = [str(store.contents(record)) for _, record in ordered]
    digest = fingerprint(*(record.digest for _, record in ordered))
    return Found(f"{EARLIER}:{digest}", locator, details={"paths": json.dumps(paths)})


def bring_earlier(found: Found, store: Store) -> Found:
    """``found`` with the datasets as they lie on this machine, which has the same ``store``.

    Raises ``InputError`` where the store has them no more, or has others.
    """
    paths = json.loads((found.details or {})["paths"])
    if all(Path(path).is_dir() for path in paths):
        return found
    named = [store.named(path) for path in paths]
    records = [store.record(*one) if one else None for one in named]
    here = [record for record in records if record is not None]
    if len(here) < len(records) or found.digest != f"{EARLIER}:{fingerprint(*(record.digest for record in here))}":
        message = f"the samples that {found.locator} was taught are no longer in the store"
        raise InputError(message, where=str(store.root), hint=HINT)
    return replace(found, details={"paths": json.dumps([str(store.contents(record)) for record in here])})


def take_earlier(found: Found, leaves: Iterable[str], out: Dataset) -> Counts:
    """Write the rows of ``leaves`` that the release was taught, none of them twice."""
    wanted = frozenset(leaves)
    rows: dict[str, TrainingRow] = {}
    for path in json.loads((found.details or {})["paths"]):
        for row in Dataset(Path(path)).rows():
            if row.leaf in wanted and row.source != "replay":
                rows.setdefault(row.id, row)
    counts = dict.fromkeys(sorted(wanted), 0)
    for row in rows.values():
        counts[row.leaf] += 1
    return {"rows": out.write(rows.values(), {"earlier": counts}), "leaves": len(wanted)}


def leaf_prints(taxonomy: Taxonomy, documents: Documents) -> dict[str, str]:
    """Leaf to a hash of all it teaches: its own digest and those of its documents' texts."""
    texts: dict[str, set[str]] = {}
    for document in documents.documents():
        texts.setdefault(document.leaf, set()).add(document.id)
    return {leaf.path: fingerprint(leaf.digest, sorted(texts.get(leaf.path, ()))) for leaf in taxonomy.leaves()}


def prints_of(lineage: Mapping[str, str], store: Store) -> dict[str, str] | None:
    """:func:`leaf_prints` of the build with this ``lineage``; None where the store has it no more."""
    found = {record.type: store.contents(record) for _, record in _records(lineage, ("taxonomy", "documents"), store)}
    if len(found) < 2:
        return None
    return leaf_prints(Taxonomy(found["taxonomy"]), Documents(found["documents"]))


def _records(lineage: Mapping[str, str], types: Iterable[str], store: Store) -> Iterator[tuple[str, RecordFile]]:
    """The records of the steps of these types, with the steps' names."""
    for type_ in types:
        for step, key in sorted(lineage.items()):
            record = store.record(type_, key)
            if record is not None:
                yield step, record

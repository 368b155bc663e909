"""What is wrong with the documents of leaves, and what in them is not for a reader: all at once, nothing kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from json import loads
from pathlib import Path

from ilab.config import Where
from ilab.core.step import Counts
from ilab.data import Flag, Leaf
from ilab.documents.chunk import chunk_documents
from ilab.documents.collect import Reading, read_documents
from ilab.documents.locate import Problem, pinned_files, survey_documents
from ilab.errors import InputError

MOST = 3  # documents of one reference that are named


@dataclass(frozen=True)
class Verified:
    """``problems`` stand at their references, one for each fault, in order. ``notes`` are for people.

    ``counts`` has files, documents, chunks, tokens and flags by leaf, for leaves with documents.
    """

    problems: tuple[Problem, ...]
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    counts: dict[str, Counts]


def verify(
    leaves: Sequence[Leaf], root: Path, where: Where, base: Path, reading: Reading, *, max_tokens: int = 500
) -> Verified:
    """Find, read and cut the documents of ``leaves`` (see :func:`ilab.documents.locate.find_documents`).

    Faults of documents, repositories and servers are in the result. Raises ``SetupError`` for those of this machine.
    """
    survey = survey_documents(leaves, root, where, base=base)
    documents, faults = read_documents(leaves, survey.found, reading)
    counts: dict[str, Counts] = {
        leaf.path: {"files": 0, "documents": 0, "chunks": 0, "tokens": 0, "flags": 0}
        for leaf in leaves
        if leaf.documents
    }
    for file in pinned_files(survey.found):
        counts[file.leaf]["files"] += 1
    for document in documents:
        counts[document.leaf]["documents"] += 1
        counts[document.leaf]["flags"] += len(document.flags)
    for part in chunk_documents(documents, max_tokens):
        counts[part.leaf]["chunks"] += 1
        counts[part.leaf]["tokens"] += part.tokens
    return Verified(
        problems=(*survey.problems, *_by_reference(faults)),
        flags=tuple(dict.fromkeys(flag for document in documents for flag in document.flags)),
        notes=tuple(loads((survey.found.details or {})["notes"])),
        counts=counts,
    )


def _by_reference(faults: Sequence[InputError]) -> list[InputError]:
    """The first few of each reference; the last of these says how many more there are."""
    totals = Counter(fault.where for fault in faults)
    seen: Counter[str] = Counter()
    told = []
    for fault in faults:
        seen[fault.where] += 1
        more = totals[fault.where] - MOST
        if seen[fault.where] < MOST or (seen[fault.where] == MOST and more <= 0):
            told.append(fault)
        elif seen[fault.where] == MOST:
            message = f"{fault.message}; so are {more} more documents of this reference"
            told.append(InputError(message, where=fault.where, hint=fault.hint))
    return told

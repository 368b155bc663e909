"""Reads the pinned files into Documents.

bytes, hash checked ──convert──▶ Converted ──policy──▶ text and flags ──▶ Document
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ilab.core.events import Emit
from ilab.core.memo import Memo
from ilab.core.step import Found
from ilab.data import Document, Leaf
from ilab.documents.convert import BINARY, HTML, document, read
from ilab.documents.files import read_document
from ilab.documents.locate import PinnedFile, pinned_files
from ilab.documents.policy import Policy
from ilab.documents.untrusted import inspect
from ilab.errors import InputError, InputErrors


@dataclass(frozen=True)
class Reading:
    """How documents are read: what becomes of untrusted text, by which converter, and where conversions are kept."""

    policy: Policy = field(default_factory=Policy)
    converter: str = "builtin"
    memo: Memo | None = None
    emit: Emit | None = None


def collect(
    leaves: Sequence[Leaf],
    found: Found,
    *,
    policy: Policy | None = None,
    memo: Memo | None = None,
    converter: str = "builtin",
    emit: Emit | None = None,
) -> list[Document]:
    """The documents of ``leaves``, sorted by leaf and file name; equal texts within one leaf count once.

    ``emit`` is told of every document before it is read. Raises ``InputErrors`` for files that hold no text, cannot be
    converted, are refused by ``policy``, or changed after they were pinned.
    """
    documents, problems = read_documents(leaves, found, Reading(policy or Policy(), converter, memo, emit))
    if problems:
        raise InputErrors(problems)
    return documents


def read_documents(leaves: Sequence[Leaf], found: Found, reading: Reading) -> tuple[list[Document], list[InputError]]:
    """As :func:`collect`, with the problems, one for each document and place, beside the documents that are fine."""
    texts = dict(_texts(leaves))
    wanted = {leaf.path for leaf in leaves}
    files = [file for file in pinned_files(found) if file.leaf in wanted]
    documents: dict[tuple[str, str], Document] = {}
    problems: list[InputError] = []
    for number, file in enumerate(files):
        if reading.emit:
            reading.emit.progress(number, len(files), "documents", file.source)
        try:
            one = _document(file, texts, reading)
            documents.setdefault((one.leaf, one.id), one)
        except InputError as error:
            message = error.message if file.source == file.place else f"{file.source}: {error.message}"
            problems.append(InputError(message, where=file.place, hint=error.hint))
    if reading.emit and files:
        reading.emit.progress(len(files), len(files), "documents")
    if reading.memo:
        reading.memo.flush()
    return list(documents.values()), problems


def _texts(leaves: Sequence[Leaf]) -> Iterator[tuple[tuple[str, str], bytes]]:
    """The texts that stand in the leaves themselves, by leaf and hash."""
    for leaf in leaves:
        for ref in leaf.documents:
            if ref.text is not None:
                data = ref.text.encode("utf-8", "surrogatepass")
                yield (leaf.path, hashlib.sha256(data).hexdigest()), data


def _document(file: PinnedFile, texts: dict[tuple[str, str], bytes], reading: Reading) -> Document:
    """Raises ``InputError`` (without ``where``) for all that can be wrong with one file."""
    suffix = PurePosixPath(file.name).suffix.lower()
    data = read_document(Path(file.path), suffix) if file.path else texts.get((file.leaf, file.sha256), b"")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise InputError("changed while the run was under way", hint="run again")
    converted = read(data, file.name, reading.memo, converter=reading.converter)
    raw = "" if suffix in (*HTML, *BINARY) else data.decode()
    word = reading.policy.of(file.source, file.leaf)
    shown, flags = inspect(converted, file.source, word, raw)
    if not shown.text:
        left = "holds no text" if not converted.text else "holds no text but what the policy `drop` leaves out"
        raise InputError(left, hint="write it, narrow the pattern, or take the reference out")
    return document(shown, file.leaf, file.source, flags=flags)

"""Reads the pinned files into Documents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ilab.core.step import Found
from ilab.data import Document, Leaf
from ilab.documents.convert import convert
from ilab.documents.locate import pinned_files, read_document
from ilab.errors import InputError, InputErrors


def collect(leaves: Sequence[Leaf], found: Found) -> list[Document]:
    """The documents of ``leaves``, sorted by leaf and file name; equal texts within one leaf count once.

    Raises ``InputErrors`` for files that hold no text or that changed after they were pinned.
    """
    places = {leaf.path: str(leaf.documents[0].place) for leaf in leaves if leaf.documents}
    documents: dict[tuple[str, str], Document] = {}
    problems: list[InputError] = []
    for file in pinned_files(found):
        if file.leaf not in places:
            continue
        try:
            data = read_document(Path(file.path), file.source)
        except InputError as error:
            problems.append(error)
            continue
        if hashlib.sha256(data).hexdigest() != file.sha256:
            problems.append(InputError("changed while the run was under way", where=file.source, hint="run again"))
            continue
        document = convert(data.decode(), file.leaf, file.source)
        if not document.text:
            hint = f"it is wanted at {places[file.leaf]}; write it, or narrow the pattern"
            problems.append(InputError("holds no text", where=file.source, hint=hint))
            continue
        documents.setdefault((document.leaf, document.id), document)
    if problems:
        raise InputErrors(problems)
    return list(documents.values())

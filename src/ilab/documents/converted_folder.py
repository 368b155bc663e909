"""A folder of converted documents: one JSON file each, with the text as Markdown and where its pages begin.

    <folder>/<name>-<hash>.json      a Document
    <folder>/.ilab-converted.json    the files that were written here

Only files that the list names are ever written over or removed, so a folder that holds anything else keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from ilab.core.files import read_json, write_json, write_text
from ilab.data import Document, digest_text, short
from ilab.documents.files import read_document
from ilab.errors import InputError

WRITTEN = ".ilab-converted.json"
FORMAT = 1
LONGEST = 80  # characters of a name that come from the document's
OWN = re.compile(r"[\w-]+\.json")  # what a name here looks like: nothing that leads elsewhere


@dataclass(frozen=True)
class Folder:
    """What was done: the names of the ``files`` that are there now, and of those that were ``removed``."""

    files: tuple[str, ...]
    removed: tuple[str, ...]


def write_converted(folder: Path, documents: Sequence[Document]) -> Folder:
    """Make ``folder`` hold ``documents``, each text once, and none of those that it was given before and is not now.

    Raises InputError where a file of somebody else's has the name of one that is to be written.
    """
    named = {_name(document): document for document in documents}
    before = set(_written(folder))
    foreign = [name for name in named if name not in before and (folder / name).exists()]
    if foreign:
        hint = "give another folder: --output-dir DIR"
        raise InputError("this file was not written by `ilab rag convert`", where=str(folder / foreign[0]), hint=hint)
    _note(folder, before | named.keys())  # first, so that a killed process leaves no file that nobody knows
    for name, document in named.items():
        write_text(folder / name, document.model_dump_json(indent=2, exclude_none=True) + "\n")
    removed = sorted(before - named.keys())
    for name in removed:
        (folder / name).unlink(missing_ok=True)
    _note(folder, named.keys())
    return Folder(tuple(sorted(named)), tuple(removed))


def is_converted(folder: Path) -> bool:
    """Whether ``folder`` was written by :func:`write_converted`."""
    return (folder / WRITTEN).is_file()


def read_converted(folder: Path) -> tuple[list[Document], list[InputError]]:
    """The documents of all JSON files in ``folder``, by name, and what is wrong with the others.

    A text that was changed by hand counts as it stands: its id is made anew.
    """
    documents, problems = [], []
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            documents.append(_read(path))
        except InputError as error:
            problems.append(InputError(error.message, where=str(path), hint=error.hint))
    return documents, problems


def _read(path: Path) -> Document:
    data = read_document(path, ".txt")
    try:
        document = Document.model_validate_json(data)
    except ValidationError as error:
        kind = "a document of docling" if b'"DoclingDocument"' in data[:4096] else "no converted document"
        hint = "convert the original again: ilab rag convert --input-dir DIR"
        raise InputError(f"this is {kind}", hint=hint) from error
    return document.model_copy(update={"id": digest_text(document.text)})


def _name(document: Document) -> str:
    stem = PurePosixPath(document.source.rpartition(":")[2]).stem
    shown = re.sub(r"[^\w-]+", "-", stem)[:LONGEST].strip("-") or "document"
    return f"{shown}-{short(document.id)}.json"


def _written(folder: Path) -> list[str]:
    if not is_converted(folder):
        return []
    try:
        names = read_json(folder / WRITTEN)["files"]
    except (ValueError, LookupError, TypeError) as error:
        hint = "remove this file; what lies beside it is then left as it is"
        raise InputError(
            "the list of converted files cannot be read", where=str(folder / WRITTEN), hint=hint
        ) from error
    return [name for name in names if isinstance(name, str) and OWN.fullmatch(name)]


def _note(folder: Path, names: Iterable[str]) -> None:
    write_json(folder / WRITTEN, {"format": FORMAT, "files": sorted(names)})

"""Documents as Markdown files on disk, as a leaf would see them: the same finding, converting and inspecting.

file, folder, address ──locate──▶ pinned files ──collect──▶ Documents ──▶ <output>/<name>.md
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ilab.config import Where
from ilab.core.files import write_text
from ilab.core.step import Found
from ilab.data import Document, DocumentRef, Flag, Leaf, Place
from ilab.documents.chunk import chunk_documents
from ilab.documents.collect import Reading, read_documents
from ilab.documents.convert import KINDS
from ilab.documents.crawl.pages import divided, file_name, folded, front_matter
from ilab.documents.files import read_document
from ilab.documents.locate import PinnedFile, pinned_files, survey_documents
from ilab.documents.markdown import blocks
from ilab.documents.trees import list_files
from ilab.errors import IlabError, InputError

_WORD = re.compile(r"\w[\w'’-]*")


@dataclass(frozen=True)
class Exported:
    """One document that was written. ``file`` is relative to the output folder; ``chunks`` counts at ``max_tokens``."""

    source: str
    file: str
    title: str
    pages: int
    tables: int
    words: int
    chunks: int
    flags: tuple[Flag, ...]


def find_inputs(
    names: Sequence[str], folder: Path, where: Where, base: Path
) -> tuple[list[PinnedFile], list[IlabError]]:
    """The document files that are meant, in order, and what is wrong with the others.

    Names are files, folders (all readable documents below) or http(s) addresses; paths are relative to ``folder``.
    """
    files: dict[str, PinnedFile] = {}
    problems: list[IlabError] = []
    addresses = tuple(name for name in names if name.startswith(("http://", "https://")))
    for name in names:
        if name in addresses:
            survey = survey_documents([_leaf(name)], folder, where, base=base)
            files |= {file.source: file for file in pinned_files(survey.found)}
            problems += [_told_of(problem, name) for problem in survey.problems]
            continue
        try:
            found = list(_below(name, folder / name))
        except InputError as error:
            problems.append(_told_of(error, name))
            continue
        files |= {file.source: file for file in found}
        if not found:
            hint = f"these are read: {', '.join(KINDS)}"
            problems.append(InputError("there is no document here", where=name, hint=hint))
    return list(files.values()), problems


def export(
    files: Sequence[PinnedFile], output: Path, reading: Reading, *, max_tokens: int
) -> tuple[list[Exported], list[IlabError]]:
    """Write a Markdown file for every document, and tell what is wrong with those that give none.

    A file that was not made from the same source is never written over.
    """
    documents, faults = read_inputs(files, reading)
    problems: list[IlabError] = list(faults)
    written: list[Exported] = []
    inputs = {file.source: file for file in files}
    for document, name in zip(documents, _names([inputs[one.source] for one in documents]), strict=True):
        path = output / name
        there = divided(path.read_bytes())[0].get("source") if path.is_file() else document.source
        if there != document.source:
            message = f"{path} is there already and was not made from this document"
            problems.append(InputError(message, where=document.source, hint="give another folder with --output"))
            continue
        write_text(path, front_matter({"source": document.source, "title": document.title}) + document.text)
        written.append(_exported(document, name, max_tokens))
    return written, problems


def read_inputs(files: Sequence[PinnedFile], reading: Reading) -> tuple[list[Document], list[InputError]]:
    """The documents of ``files``, and what is wrong with those that give none (``where`` is the file's source)."""
    found = Found("", "", details={"files": json.dumps([asdict(file) for file in files])})
    return read_documents([_leaf(file.source) for file in files], found, reading)


def _exported(document: Document, name: str, max_tokens: int) -> Exported:
    return Exported(
        source=document.source,
        file=name,
        title=document.title,
        pages=len(document.pages),
        tables=sum(block.kind == "table" for block in blocks(document.text)),
        words=len(_WORD.findall(document.text)),
        chunks=len(chunk_documents([document], max_tokens)),
        flags=document.flags,
    )


def _below(name: str, path: Path) -> Iterator[PinnedFile]:
    """The file at ``path``, or the readable files below it; no link in a folder leads out of it."""
    if not path.is_dir():
        yield _pinned(name, path)
        return
    for inner in list_files(path):
        file = path / inner
        if file.suffix.lower() in KINDS and file.resolve().is_relative_to(path.resolve()):
            yield replace(_pinned((PurePosixPath(name) / inner).as_posix(), file), name=inner)


def _pinned(source: str, path: Path) -> PinnedFile:
    digest = hashlib.sha256(read_document(path)).hexdigest()
    return PinnedFile(source, source, path.name, str(path.absolute()), digest, source)


def _leaf(name: str) -> Leaf:
    """A leaf that wants this one document."""
    place = Place(file=name, line=1)
    ref = DocumentRef(urls=(name,), place=place)
    facts: dict[str, Any] = {"kind": "knowledge", "version": 3, "created_by": "", "seeds": (), "digest": ""}
    return Leaf(path=name, documents=(ref,), place=place, **facts)


def _told_of(error: IlabError, name: str) -> IlabError:
    """The same error about the name that was given, not about a place in a ``qna.yaml``."""
    error.where = name
    return error


def _names(files: Sequence[PinnedFile]) -> Iterator[str]:
    """A name for each: the document's own with ``.md``; where two agree, its suffix stays in."""
    taken: set[str] = set()
    for file in files:
        name = PurePosixPath(file.name).with_suffix(".md").as_posix()
        if file.source.startswith(("http://", "https://")):
            name = file_name(file.source, ".md", taken)
        elif folded(name) in taken:
            name = f"{file.name}.md"
        taken.add(folded(name))
        yield name

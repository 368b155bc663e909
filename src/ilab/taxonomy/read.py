"""Reads a taxonomy into leaves, and tells every mistake of every file in one go.

    find_layout ── qna.yaml files ──▶ yamlnodes.load ──▶ check (schema/*.json) ──▶ Leaf
                                          eval.yaml ──▶ items.read_items ──────────▶ Leaf.items

A leaf is knowledge where it has a ``document`` or lies below ``knowledge/``; a skill is grounded where any of its
seed examples has a context, else freeform. Files of versions 1, 2 and 3 are read; without ``version`` a file has
version 1. Seed examples and pairs with ``draft: true`` are checked like the others and are no part of the leaf.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ilab.core.step import canonical
from ilab.data import DocumentRef, Kind, Leaf, Place, QuestionAnswer, SeedExample, digest_text
from ilab.errors import InputError, InputErrors
from ilab.taxonomy.check import check
from ilab.taxonomy.items import read_items
from ilab.taxonomy.layout import ATTRIBUTION, EVAL, Layout, find_layout
from ilab.taxonomy.lint import LintWarning
from ilab.taxonomy.references import read_references
from ilab.taxonomy.yamlfaults import Placed, problem
from ilab.taxonomy.yamlnodes import (
    START,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    decode,
    is_true,
    load,
    optional_text,
    read_bytes,
    text,
)

VERSIONS = ("1", "2", "3")
_BAD_NAME = re.compile(r"[#\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Reading:
    """``leaves`` sorted by path, ``warnings`` about files passed over; names are relative to ``root``."""

    leaves: tuple[Leaf, ...]
    warnings: tuple[str, ...]
    root: Path


def read_taxonomy(path: Path) -> Reading:
    """The leaves of the taxonomy folder, or of the single ``qna.yaml``, at ``path``.

    Raises ``InputErrors`` with all mistakes of all files, each with file and line; ``InputError`` where there is
    no taxonomy at all.
    """
    layout = find_layout(path)
    leaves, problems = read_leaves(layout)
    if problems:
        raise InputErrors(problems)
    return Reading(leaves, layout.warnings, layout.root)


def read_leaves(layout: Layout, notes: list[LintWarning] | None = None) -> tuple[tuple[Leaf, ...], list[InputError]]:
    """The leaves of ``layout.files`` that are right, sorted by path, and every mistake in the others.

    To ``notes`` is added what a leaf does not say of itself: drafts that wait, and old versions.
    """
    problems: list[InputError] = []
    leaves = []
    with _no_collections():
        for file in layout.files:
            try:
                leaf = _read_leaf(file, layout, problems, [] if notes is None else notes)
            except InputError as error:  # the file cannot be read at all; the others can
                problems.append(error)
                continue
            if leaf is not None:
                leaves.append(leaf)
    return tuple(sorted(leaves, key=lambda leaf: leaf.path)), problems


@contextmanager
def _no_collections() -> Iterator[None]:
    """No search for garbage: all that is made here is kept, and going through it again costs a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()  # together: what was made counts as old, and is not gone through at once
            gc.unfreeze()
            gc.enable()


def _read_leaf(file: Path, layout: Layout, problems: list[InputError], notes: list[LintWarning]) -> Leaf | None:
    """The leaf of one ``qna.yaml``, or ``None`` where problems were found in it or in the files beside it."""
    name = layout.name(file)
    if _BAD_NAME.search(name):
        message = "a folder's name holds `#` or a character that cannot be shown"
        raise problem(ascii(name)[1:-1], START, message, "rename the folder")
    if not layout.holds(file):
        raise problem(name, START, "is a link that leaves the taxonomy", "put the file itself there")
    found: list[InputError] = []
    node = load(file, name, found)
    if node is None:
        raise problem(name, START, "is empty", "write the leaf (`ilab taxonomy new` begins one), or remove the file")
    leaf = None
    if isinstance(node, MappingNode):
        knowledge = name.startswith("knowledge/") or "document" in node.entries
        version = _version(node, knowledge, name, found)
        if version is not None:
            check(node, "knowledge" if knowledge else "skill", name, found)
            notes += _notes(node, version, name)
        if version is not None and not found:
            leaf = _build(node, knowledge, version, file, layout, found)
    else:
        check(node, "skill", name, found)
    problems += found
    return leaf if not found else None


def _version(node: MappingNode, knowledge: bool, file: str, problems: list[InputError]) -> int | None:
    """The version that the file gives itself; ``None`` where there is none that could be checked."""
    written = node.get("version")
    if isinstance(written, ScalarNode) and written.text in VERSIONS:
        return int(written.text)
    if written is None:
        if not (knowledge and "document_outline" in node.entries):
            return 1
        message = "has no `version`, and a `document_outline` as version 3 has it"
        problems.append(problem(file, START, message, "write `version: 3` as its first line"))
        return None
    shown = f"`{written.text[:40]}`" if isinstance(written, ScalarNode) else "a list or mapping"
    message = f"`version` is {shown}; versions 1, 2 and 3 are known"
    problems.append(problem(file, written, message, "write `version: 3`"))
    return None


def _notes(node: MappingNode, version: int, file: str) -> list[LintWarning]:
    """What the author should know of a file that may well be right."""
    notes = []
    if version < 3:
        hint = f"ilab taxonomy upgrade {file}"
        message = f"version {version}; `ilab taxonomy upgrade` rewrites it to version 3"
        notes.append(LintWarning(_place(node.get("version") or START, file), "old-version", message, hint))
    drafts = _drafts(node)
    if drafts:
        message = "1 draft waits to be read" if len(drafts) == 1 else f"{len(drafts)} drafts wait to be read"
        hint = "read each, correct it, then remove its `draft: true` line; until then it does not count"
        notes.append(LintWarning(_place(drafts[0], file), "draft", message, hint))
    return notes


def _drafts(node: MappingNode) -> list[Node]:
    """The seed examples that are drafts, and the pairs that are in the others."""
    found = []
    for seed in _mappings(node.get("seed_examples")):
        pairs = _mappings(seed.get("questions_and_answers"))
        found += [seed] if is_true(seed.get("draft")) else [pair for pair in pairs if is_true(pair.get("draft"))]
    return cast(list[Node], found)


def _build(
    node: MappingNode, knowledge: bool, version: int, file: Path, layout: Layout, problems: list[InputError]
) -> Leaf:
    """The Leaf of a tree that has passed its schema."""
    name = layout.name(file)
    entries = _mappings(node.get("seed_examples"))
    seeds = tuple(_seed(entry, name) for entry in entries if not is_true(entry.get("draft")))
    kind: Kind = "knowledge" if knowledge else "grounded" if any(seed.context for seed in seeds) else "freeform"
    path = layout.leaf_path(file, kind)
    if _BAD_NAME.search(path):
        message = "the folder's name holds `#` or a character that cannot be shown"
        raise problem(name, START, message, "rename the folder")
    documents = read_references(node.get("document"), name, problems)
    texts = {key: optional_text(node.get(key)) or "" for key in ("task_description", "domain", "document_outline")}
    teaches = {
        "kind": kind,
        **texts,
        "seeds": [[seed.context, [[pair.question, pair.answer] for pair in seed.pairs]] for seed in seeds],
        "documents": [_taught(ref) for ref in documents],
    }
    items = _beside(file, EVAL, layout)
    credit = _beside(file, ATTRIBUTION, layout)
    attribution = decode(read_bytes(credit, layout.name(credit)), layout.name(credit)).strip() if credit else None
    return Leaf(
        path=path,
        kind=kind,
        version=version,
        created_by=text(node.get("created_by")),
        task=texts["task_description"],
        domain=texts["domain"],
        outline=texts["document_outline"],
        seeds=seeds,
        documents=documents,
        items=read_items(items, layout.name(items), path, problems) if items else (),
        attribution=attribution or None,
        digest=digest_text(canonical(teaches)),
        place=_place(node, name),
    )


def _taught(ref: DocumentRef) -> list[Any]:
    """A reference as the leaf's digest holds it; the form of git and local files is that of the first digests."""
    if ref.urls or ref.text is not None:
        return ["url", list(ref.urls)] if ref.urls else ["text", ref.text]
    return [ref.repo, ref.commit, list(ref.patterns)]


def _beside(file: Path, name: str, layout: Layout) -> Path | None:
    """The file ``name`` in the leaf's folder, if there is one."""
    path = file.parent / name
    if not path.exists():
        return None
    if path.is_symlink() and not layout.holds(path):
        raise problem(layout.name(path), START, "is a link that leaves the taxonomy", "put the file itself there")
    return path


def _seed(node: MappingNode, file: str) -> SeedExample:
    """One seed example: a pair under an optional context, or (knowledge, version 3) several under one."""
    pairs = _mappings(node.get("questions_and_answers")) or [node]
    return SeedExample(
        context=optional_text(node.get("context")),
        pairs=tuple(_pair(pair, file) for pair in pairs if not is_true(pair.get("draft"))),
        place=_place(node, file),
    )


def _pair(node: MappingNode, file: str) -> QuestionAnswer:
    question, answer = text(node.get("question")), text(node.get("answer"))
    return QuestionAnswer(question=question, answer=answer, place=_place(node, file))


def _mappings(node: Node | None) -> list[MappingNode]:
    """The mappings of a list; a tree that has passed its schema holds nothing else there."""
    items = node.items if isinstance(node, SequenceNode) else []
    return [item for item in items if isinstance(item, MappingNode)]


def _place(at: Placed, file: str) -> Place:
    return Place(file=file, line=at.line, column=at.column)

"""Reads a taxonomy into leaves, and tells every mistake of every file in one go.

    find_layout ── qna.yaml files ──▶ yamlnodes.load ──▶ check (schema/*.json) ──▶ Leaf
                                          eval.yaml ──▶ items.read_items ──────────▶ Leaf.items

A leaf is knowledge where it has a ``document`` or lies below ``knowledge/``; a skill is grounded where any of its
seed examples has a context, else freeform. Files of versions 1, 2 and 3 are read; without ``version`` a file has
version 1.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ilab.core.step import canonical
from ilab.data import DocumentRef, Kind, Leaf, Place, QuestionAnswer, SeedExample, digest_text
from ilab.errors import InputError, InputErrors
from ilab.taxonomy.check import check
from ilab.taxonomy.items import read_items
from ilab.taxonomy.layout import ATTRIBUTION, EVAL, Layout, find_layout
from ilab.taxonomy.yamlnodes import (
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    decode,
    load,
    optional_text,
    problem,
    read_bytes,
    text,
)

VERSIONS = ("1", "2", "3")
_BAD_NAME = re.compile(r"[#\x00-\x1f\x7f\ud800-\udfff]")
_CREDENTIALS = re.compile(r"://[^/@]*:[^/@]*@")


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


def read_leaves(layout: Layout) -> tuple[tuple[Leaf, ...], list[InputError]]:
    """The leaves of ``layout.files`` that are right, sorted by path, and every mistake in the others."""
    problems: list[InputError] = []
    leaves = []
    for file in layout.files:
        try:
            leaf = _read_leaf(file, layout, problems)
        except InputError as error:  # the file cannot be read at all; the others can
            problems.append(error)
            continue
        if leaf is not None:
            leaves.append(leaf)
    return tuple(sorted(leaves, key=lambda leaf: leaf.path)), problems


def _read_leaf(file: Path, layout: Layout, problems: list[InputError]) -> Leaf | None:
    """The leaf of one ``qna.yaml``, or ``None`` where problems were found in it or in the files beside it."""
    name = layout.name(file)
    if _BAD_NAME.search(name):
        raise InputError(
            "a folder's name holds `#` or a character that cannot be shown",
            where=ascii(name)[1:-1],
            hint="rename the folder",
        )
    if not layout.holds(file):
        raise InputError("is a link that leaves the taxonomy", where=name, hint="put the file itself there")
    found: list[InputError] = []
    node = load(file, name, found)
    if node is None:
        raise problem(name, 1, "is empty", "write the leaf, or remove the file")
    under_knowledge = name.startswith("knowledge/")
    if isinstance(node, MappingNode):
        knowledge = under_knowledge or "document" in node.entries
        version = _version(node, name, found)
    else:
        knowledge, version = under_knowledge, 1
    if version is not None:
        check(node, "knowledge" if knowledge else "skill", name, found)
    if not found and isinstance(node, MappingNode):
        leaf = _build(node, knowledge, file, layout, found)
        problems += found
        return leaf if not found else None
    problems += found
    return None


def _version(node: MappingNode, file: str, problems: list[InputError]) -> int | None:
    written = node.get("version")
    if written is None:
        return 1
    if isinstance(written, ScalarNode) and written.text in VERSIONS:
        return int(written.text)
    shown = f"`{written.text[:40]}`" if isinstance(written, ScalarNode) else "a list or mapping"
    problems.append(
        problem(file, written.line, f"`version` is {shown}; versions 1, 2 and 3 are known", "write `version: 3`")
    )
    return None


def _build(node: MappingNode, knowledge: bool, file: Path, layout: Layout, problems: list[InputError]) -> Leaf:
    """The Leaf of a tree that has passed its schema."""
    name = layout.name(file)
    seeds = tuple(_seed(entry, name) for entry in _entries(node.get("seed_examples")))
    kind: Kind = "knowledge" if knowledge else "grounded" if any(seed.context for seed in seeds) else "freeform"
    path = layout.leaf_path(file, kind)
    if _BAD_NAME.search(path):
        raise InputError(
            "the folder's name holds `#` or a character that cannot be shown", where=name, hint="rename the folder"
        )
    documents = _documents(node.get("document"), name, problems)
    texts = {key: optional_text(node.get(key)) or "" for key in ("task_description", "domain", "document_outline")}
    teaches = {
        "kind": kind,
        **texts,
        "seeds": [[seed.context, [[pair.question, pair.answer] for pair in seed.pairs]] for seed in seeds],
        "documents": [[ref.repo, ref.commit, list(ref.patterns)] for ref in documents],
    }
    items = _beside(file, EVAL, layout)
    credit = _beside(file, ATTRIBUTION, layout)
    attribution = decode(read_bytes(credit, layout.name(credit)), layout.name(credit)).strip() if credit else None
    return Leaf(
        path=path,
        kind=kind,
        version=_version(node, name, problems) or 1,
        created_by=text(node.get("created_by")),
        task=texts["task_description"],
        domain=texts["domain"],
        outline=texts["document_outline"],
        seeds=seeds,
        documents=documents,
        items=read_items(items, layout.name(items), path, problems) if items else (),
        attribution=attribution or None,
        digest=digest_text(canonical(teaches)),
        place=Place(file=name, line=node.line, column=node.column),
    )


def _beside(file: Path, name: str, layout: Layout) -> Path | None:
    """The file ``name`` in the leaf's folder, if there is one."""
    path = file.parent / name
    if not path.exists():
        return None
    if not layout.holds(path):
        raise InputError(
            "is a link that leaves the taxonomy", where=layout.name(path), hint="put the file itself there"
        )
    return path


def _seed(node: Node, file: str) -> SeedExample:
    """One seed example: a pair under an optional context, or (knowledge, version 3) several under one."""
    node = cast(MappingNode, node)  # the schema has been checked
    pairs = _entries(node.get("questions_and_answers")) or [node]
    return SeedExample(
        context=optional_text(node.get("context")),
        pairs=tuple(_pair(pair, file) for pair in pairs),
        place=_place(node, file),
    )


def _pair(node: Node, file: str) -> QuestionAnswer:
    node = cast(MappingNode, node)
    question, answer = text(node.get("question")), text(node.get("answer"))
    return QuestionAnswer(question=question, answer=answer, place=_place(node, file))


def _documents(node: Node | None, file: str, problems: list[InputError]) -> tuple[DocumentRef, ...]:
    """The leaf's document reference; patterns that leave the repository or the taxonomy are refused."""
    if not isinstance(node, MappingNode):
        return ()
    repo, commit, local = node.get("repo"), node.get("commit"), node.get("path")
    patterns = [local] if isinstance(local, ScalarNode) else _entries(local or node.get("patterns"))
    for pattern in patterns:
        fault = _pattern_fault(text(pattern), posixpath.dirname(file) if repo is None else "")
        if fault:
            hint = (
                "give a path relative to the folder of qna.yaml"
                if repo is None
                else "give a path relative to the repository"
            )
            problems.append(problem(file, pattern.line, f"the document path `{text(pattern)[:80]}` {fault}", hint))
    if repo is not None and _CREDENTIALS.search(text(repo)):
        message = "the repository address holds a password"
        problems.append(problem(file, repo.line, message, "remove it; git's own credential helper is asked for it"))
    return (
        DocumentRef(
            repo=text(repo) if repo else None,
            commit=text(commit) if commit else None,
            patterns=tuple(text(pattern) for pattern in patterns),
            place=_place(node, file),
        ),
    )


def _pattern_fault(pattern: str, folder: str) -> str:
    """What is wrong with a document pattern that is relative to ``folder`` below its root; "" for nothing."""
    if pattern.startswith(("/", "~")) or "\\" in pattern or "\0" in pattern:
        return "is not a relative path with `/`"
    parts = pattern.split("/")
    wild = next((index for index, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    if ".." in parts[wild:]:
        return "has `..` after a wildcard"
    if posixpath.normpath(posixpath.join(folder, *parts[:wild])).split("/")[0] == "..":
        return "leaves the taxonomy" if folder else "leaves its folder"
    return ""


def _entries(node: Node | None) -> list[Node]:
    return node.items if isinstance(node, SequenceNode) else []


def _place(node: Node, file: str) -> Place:
    return Place(file=file, line=node.line, column=node.column)

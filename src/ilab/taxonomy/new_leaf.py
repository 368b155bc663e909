"""Scaffolds a leaf: the forms that its author fills in, at a path that any tree, id and file system can hold.

    knowledge/science/my_topic      begins with a root: that says knowledge or skill
    my_topic  + kind                is put below the root of that kind

Every place that has to be filled in is empty in the form, and an empty place is an error with its line in
``ilab taxonomy check``: an unfinished leaf cannot be built. Documents of the taxonomy, of a git repository and of the
web are referred to; a file from outside the taxonomy is copied beside the leaf. Nothing is ever overwritten, and
nothing is written before everything has been looked at.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ilab.core.git import is_url
from ilab.data import Kind
from ilab.errors import InputError
from ilab.taxonomy.layout import ATTRIBUTION, EVAL, QNA, ROOTS
from ilab.taxonomy.scaffold import write_new
from ilab.taxonomy.yamlnodes import MAX_BYTES, read_bytes

FORMS = Path(__file__).parent / "leaf_template"
MAX_NAME = 60  # characters of one part of a path: at most 240 bytes, and file systems take 255
MAX_DOCUMENT = 16 * MAX_BYTES  # bytes of a file that is copied
_BELOW: dict[Kind, str] = {
    "knowledge": "knowledge",
    "grounded": "compositional_skills/grounded",
    "freeform": "compositional_skills",
}
_RESERVED = {  # file names that Windows keeps for devices
    *("con", "prn", "aux", "nul"),
    *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10)),
}
_REPOSITORY = re.compile(
    r"(?P<repo>\w+://[^/@]*(?:@[^/@]*)?/.+|[\w.-]+@[\w.-]+:.+)@(?P<commit>[^@:\s]+):(?P<pattern>.+)"
)
_BARE_REPOSITORY = re.compile(r"\.git(?:@[^/]*)?/?$")
_WEB = re.compile(r"https?://", re.IGNORECASE)
_SECRET = re.compile(r"://[^/@]*:[^/@]*@|^https?://[^/@]*@", re.IGNORECASE)
_PLAIN = re.compile(
    r"(?!(?:null|true|false|yes|no|on|off|[yn])$)[^\W\d](?:[\w ./@-]|:(?=[^\s:]))*(?<! )", re.IGNORECASE
)


@dataclass(frozen=True)
class NewLeaf:
    """The leaf ``path`` of the taxonomy at ``root``; ``files`` are the names of those written, relative to it."""

    root: Path
    path: str
    kind: Kind
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Document:
    """A document as the form refers to it. ``copied`` is the file that has to be copied beside the leaf."""

    entry: dict[str, str | list[str]]
    copied: Path | None = None


def make_leaf(
    root: Path,
    path: str,
    *,
    kind: Kind | None = None,
    documents: Sequence[str] = (),
    base: Path | None = None,
    author: str = "",
    held_out: bool = False,
) -> NewLeaf:
    """Write the forms of a new leaf in the taxonomy at ``root``. ``held_out`` adds one for ``eval.yaml``.

    Each of ``documents`` is a file (relative to ``base``, or else to the current folder), a web address, or
    ``REPOSITORY@COMMIT:PATTERN``. Raises ``InputError`` for a path
    that is no good name, with a better one; for a leaf that exists; for a document that cannot be used.
    """
    if not any((root / name).is_dir() for name in ROOTS):
        hint = "give the taxonomy's folder, or make one: ilab taxonomy init DIR"
        raise InputError(f"there is no taxonomy here: none of {', '.join(ROOTS)}", where=str(root), hint=hint)
    path, kind = leaf_path(path, kind, "knowledge" if documents else None)
    if documents and kind != "knowledge":
        raise InputError(
            f"a {kind} skill has no documents", hint="leave out --document, or give a path below knowledge/"
        )
    _refuse_taken(root, path)
    refs = [_document(text, base or Path.cwd(), root, path) for text in documents]
    files = _copies(root / path, [ref.copied for ref in refs if ref.copied])
    files[ATTRIBUTION] = (FORMS / ATTRIBUTION).read_bytes()
    if held_out:
        files[EVAL] = (FORMS / EVAL).read_bytes()
    files[QNA] = _form(kind, author, [ref.entry for ref in refs])  # last: with it the folder becomes a leaf
    written = [name for name, data in files.items() if write_new(root, f"{path}/{name}", data)]
    return NewLeaf(root, path, kind, tuple(f"{path}/{name}" for name in written))


def unmake_leaf(leaf: NewLeaf) -> None:
    """Remove the files that :func:`make_leaf` wrote, and the folders that are empty without them."""
    for name in leaf.files:
        (leaf.root / name).unlink(missing_ok=True)
    folder = leaf.root / leaf.path
    while folder.parent != leaf.root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def leaf_path(given: str, kind: Kind | None, implied: Kind | None = None) -> tuple[str, Kind]:
    """The path of a new leaf from its root on, and what it teaches. Raises ``InputError`` with a proposal.

    ``kind`` is what the author said; ``implied`` counts where neither that nor the path says it.
    """
    given = given.replace("\\", "/")
    if given.startswith(("/", "~")) or re.match(r"[A-Za-z]:", given):
        message, hint = (
            f"the path {given!r} is absolute",
            "give it from the root on, such as knowledge/science/my_topic",
        )
        raise InputError(message, hint=hint)
    parts = [part for part in given.removesuffix(f"/{QNA}").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InputError(f"the path {given!r} holds `..`", hint="give it from the root on, such as knowledge/a/b")
    at = next((index for index, part in enumerate(parts) if part in ROOTS), None)
    if at:
        raise InputError(f"the path {given!r} does not begin at the root", hint=f"did you mean {'/'.join(parts[at:])}?")
    better = [part if index == at else _proper(part) for index, part in enumerate(parts)]
    if at is None and parts:
        near = difflib.get_close_matches(better[0], ROOTS, 1, 0.75)
        if near and len(parts) > 1:
            message = f"{parts[0]!r} is no root of a taxonomy"
            raise InputError(message, hint=f"did you mean {'/'.join([near[0], *better[1:]])}?")
    names = better[1:] if at == 0 else better
    if not names or not all(names):
        hint = "give a name of letters, digits and _, such as knowledge/science/my_topic"
        raise InputError(f"the path {given!r} names no leaf", hint=hint)
    kind = kind or (implied if at is None else None)
    if at is None and kind is None:
        choices = ", ".join(f"{_BELOW[one]}/{'/'.join(names)}" for one in _BELOW)
        raise InputError(f"{given!r} does not say what it teaches", hint=f"give --kind, or one of {choices}")
    if better != parts:
        hint = f"did you mean {'/'.join(better)}? Names have small letters, digits, _ and -"
        raise InputError(f"the path {given!r} is no good name for a leaf", hint=hint)
    if at is None and kind is not None:
        return f"{_BELOW[kind]}/{'/'.join(names)}", kind
    return "/".join(parts), _kind_below(parts, kind)


def _kind_below(parts: list[str], kind: Kind | None) -> Kind:
    """What a leaf at ``parts`` teaches: the root says it, ``grounded`` below it by habit, ``kind`` for certain."""
    if (parts[0] == "knowledge") != (kind == "knowledge") and kind is not None:
        hint = f"leave out --kind, or give the path {_BELOW[kind]}/{'/'.join(parts[1:])}"
        raise InputError(f"a leaf of the kind {kind} cannot lie below {parts[0]}", hint=hint)
    if parts[0] == "knowledge":
        return "knowledge"
    return kind or ("grounded" if "grounded" in parts[1:-1] else "freeform")


def _proper(part: str) -> str:
    """``part`` as a good name: small letters and digits of any script, ``_`` and ``-``; "" where nothing is left."""
    name = unicodedata.normalize("NFC", part).lower()
    name = re.sub(r"[^\w-]+", "_", name).strip("_-")[:MAX_NAME].rstrip("_-")
    return f"{name}_" if name in _RESERVED else f"the_{name}" if name in ROOTS else name


def _refuse_taken(root: Path, path: str) -> None:
    """Raise ``InputError`` where the leaf exists, or the path leads through a file or a link."""
    if os.path.lexists(root / path / QNA):
        hint = "choose another name, or go on with that file"
        raise InputError("this leaf exists already", where=f"{path}/{QNA}", hint=hint)
    folder = root
    for part in path.split("/"):
        folder /= part
        if folder.is_symlink():
            hint = "leaves behind links are not read: choose another path"
            raise InputError("is a link", where=str(folder), hint=hint)
        if folder.exists() and not folder.is_dir():
            raise InputError("is a file, so no leaf can lie below it", where=str(folder), hint="choose another path")


def _document(given: str, base: Path, root: Path, leaf: str) -> _Document:
    """What the form says about one document."""
    if _SECRET.search(given):
        hint = "leave out name and password; git's own credential helper is asked for them"
        raise InputError("the address of a document holds a user name or a password", hint=hint)
    repository = _REPOSITORY.fullmatch(given)
    if repository:
        named = repository.groupdict()
        return _Document({"repo": named["repo"], "commit": named["commit"], "patterns": [named["pattern"]]})
    if _WEB.match(given) and not _BARE_REPOSITORY.search(given):
        return _Document({"url": given})
    if is_url(given):
        hint = f"add which files of which commit: {given}@COMMIT:PATTERN, such as …@main:docs/*.md"
        raise InputError(f"{given!r} is the address of a repository, not of a document", hint=hint)
    file = base / Path(given).expanduser()
    if not file.exists():
        hint = "give a file, a web address, or REPOSITORY@COMMIT:PATTERN"
        raise InputError("there is no such document", where=given, hint=hint)
    inside = file.resolve().is_relative_to(root.resolve())
    if inside:
        name = os.path.relpath(file.resolve(), (root / leaf).resolve()).replace(os.sep, "/")
        return _Document({"path": name})
    if file.is_dir():
        hint = "give its files one by one, or put the folder into the taxonomy and give it there"
        raise InputError("a folder outside the taxonomy cannot be referred to", where=given, hint=hint)
    if file.name in (QNA, EVAL, ATTRIBUTION):
        raise InputError(f"a document may not be called {file.name}", where=given, hint="rename the file")
    return _Document({"path": file.name}, file)


def _copies(folder: Path, files: list[Path]) -> dict[str, bytes]:
    """Name and contents of the documents to be copied to ``folder``. Another file of the same name is refused."""
    copies: dict[str, bytes] = {}
    for file in files:
        data, there = read_bytes(file, str(file), MAX_DOCUMENT), folder / file.name
        taken = os.path.lexists(there) and (not there.is_file() or there.read_bytes() != data)
        if taken or copies.setdefault(file.name, data) != data:
            message = f"there is another document called {file.name} for this leaf"
            raise InputError(message, where=str(file), hint="rename one of the two")
    return copies


def _form(kind: Kind, author: str, documents: list[dict[str, str | list[str]]]) -> bytes:
    """The ``qna.yaml`` to fill in."""
    text = (FORMS / f"{kind}.yaml").read_text(encoding="utf-8")
    filled = {"created_by": f" {_scalar(author)}" if author else "", "document": _references(documents)}
    return string.Template(text).substitute(filled).encode()


def _references(documents: list[dict[str, str | list[str]]]) -> str:
    """The value of ``document:``: a mapping for one reference, else a list; files beside the leaf are one reference."""
    paths = [str(entry["path"]) for entry in documents if "path" in entry]
    merged: list[dict[str, str | list[str]]] = [{"path": paths[0] if len(paths) == 1 else paths}] if paths else []
    merged += [entry for entry in documents if "path" not in entry]
    if not merged:
        return "\n  path:"
    blocks = [[f"{key}: {_value(value)}" for key, value in entry.items()] for entry in merged]
    if len(blocks) == 1:
        return "".join(f"\n  {line}" for line in blocks[0])
    return "".join(f"\n  {'- ' if index == 0 else '  '}{line}" for block in blocks for index, line in enumerate(block))


def _value(value: str | list[str]) -> str:
    return f"[{', '.join(map(_scalar, value))}]" if isinstance(value, list) else _scalar(value)


def _scalar(text: str) -> str:
    """``text`` as YAML: plain where nobody could read it as anything else, else in double quotes as in JSON."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)

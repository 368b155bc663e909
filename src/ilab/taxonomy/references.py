"""The ``document`` of a leaf as document references: one mapping or a list of them, each in one of four forms.

    {repo, commit, patterns}     files of a git repository
    {path}                       files or folders beside the qna.yaml
    {url}                        single documents on the web
    {text}                       Markdown on the spot

What would lead out of the repository, the taxonomy or the web is refused, and so are passwords in addresses.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import urlsplit

from ilab.data import DocumentRef, Place
from ilab.errors import InputError
from ilab.taxonomy.yamlfaults import problem
from ilab.taxonomy.yamlnodes import MappingNode, Node, ScalarNode, SequenceNode, text

_WILD = re.compile(r"[*?\[]")
_CREDENTIALS = re.compile(r"://[^/@]*:[^/@]*@")
_NO_ADDRESS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\\<>\"]")


def read_references(node: Node | None, file: str, problems: list[InputError]) -> tuple[DocumentRef, ...]:
    """The references of ``node``, which has passed its schema, in its order; mistakes are added to ``problems``."""
    entries = node.items if isinstance(node, SequenceNode) else [node]
    return tuple(_reference(entry, file, problems) for entry in entries if isinstance(entry, MappingNode))


def _reference(node: MappingNode, file: str, problems: list[InputError]) -> DocumentRef:
    place = Place(file=file, line=node.line, column=node.column)
    if "path" in node.entries:
        paths = _listed(node.get("path"))
        _check_patterns(paths, posixpath.dirname(file), file, problems)
        return DocumentRef(patterns=_texts(paths), place=place)
    if "url" in node.entries:
        addresses = _listed(node.get("url"))
        problems += [fault for address in addresses if (fault := _address_fault(address, file))]
        return DocumentRef(urls=_texts(addresses), place=place)
    if "text" in node.entries:
        return DocumentRef(text=text(node.get("text")), place=place)
    repo, patterns = node.get("repo"), _listed(node.get("patterns"))
    _check_patterns(patterns, None, file, problems)
    if repo is not None and _CREDENTIALS.search(text(repo)):
        hint = "remove it; git's own credential helper is asked for it"
        problems.append(problem(file, repo, "the repository address holds a password", hint))
    return DocumentRef(repo=text(repo), commit=text(node.get("commit")), patterns=_texts(patterns), place=place)


def _check_patterns(patterns: list[Node], folder: str | None, file: str, problems: list[InputError]) -> None:
    """``folder`` is what local patterns are relative to, below the taxonomy's root; ``None`` for a repository."""
    for pattern in patterns:
        fault = _pattern_fault(text(pattern), folder or "")
        if fault:
            what = "the repository" if folder is None else "the folder of qna.yaml"
            message = f"the document path `{text(pattern)[:80]}` {fault}"
            problems.append(problem(file, pattern, message, f"give a path relative to {what}"))


def _pattern_fault(pattern: str, folder: str) -> str:
    """What is wrong with a document pattern that is relative to ``folder`` below its root; "" for nothing."""
    if pattern.startswith(("/", "~")) or "\\" in pattern or "\0" in pattern:
        return "is not a relative path with `/`"
    parts = pattern.split("/")
    wild = next((index for index, part in enumerate(parts) if _WILD.search(part)), len(parts))
    if ".." in parts[wild:]:
        return "has `..` after a wildcard"
    if posixpath.normpath(posixpath.join(folder, *parts[:wild])).split("/")[0] == "..":
        return "leaves the taxonomy" if folder else "leaves its folder"
    return ""


def _address_fault(node: Node, file: str) -> InputError | None:
    """What is wrong with a web address. A password in it is not shown."""
    address = text(node)
    hint = "give an address such as https://example.org/manual.html"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port  # both may be refused only when asked for
    except ValueError:
        return problem(file, node, "the document address cannot be read", hint)
    if "@" in parts.netloc:
        return problem(file, node, "the document address holds a user name or password", "remove it")
    shown = f"the document address `{address[:80]}`"
    if parts.scheme not in ("http", "https"):
        return problem(file, node, f"{shown} does not begin with https:// or http://", hint)
    if not host or _NO_ADDRESS.search(address):
        what = "holds a blank or a character that no address has" if host else "has no host"
        return problem(file, node, f"{shown} {what}", hint)
    return None


def _listed(node: Node | None) -> list[Node]:
    """The entries of a list; a single text stands for a list of one."""
    if isinstance(node, SequenceNode):
        return node.items
    return [node] if isinstance(node, ScalarNode) else []


def _texts(nodes: list[Node]) -> tuple[str, ...]:
    return tuple(text(node) for node in nodes)

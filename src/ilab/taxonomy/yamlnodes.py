"""YAML as a tree of nodes that know their place, for files written by people and not to be trusted.

The tree keeps every scalar as the *text that stands in the file*: ``no``, ``1e3`` and ``2024-01-01`` stay what was
typed, because YAML's guesses (false, 1000.0, a date) are never what an author of questions and answers means.

The tree is built from libyaml's events without recursion. Limits stop hostile input: file size, nesting depth, and
the number of nodes and characters *after* aliases are expanded. Duplicate keys are reported and the reading goes
on; what YAML itself cannot read ends the file with one error in plain words. Nothing is constructed from a tag.

A place is a line and a column as editors count them: characters, from 1.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from ilab.errors import InputError
from ilab.taxonomy.yamlfaults import MOST_FAULTS, Mark, Placed, explain, line_starts, problem

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 50
MAX_NODES = 200_000
MAX_CHARACTERS = 16 * 2**20

START = Mark(1, 1)
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")} | {
    "!"
}
_BLANK_LINE = re.compile(r"(?m)^[ \t]++$")  # a tab on an otherwise empty line is no reason to refuse a file
_YAML_BREAK = re.compile("[\x85\u2028\u2029]")  # ends a line for YAML 1.1, and for no editor
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ScalarNode(NamedTuple):
    """``plain`` is true for text without quotes."""

    text: str
    line: int
    column: int
    plain: bool = True


class SequenceNode(NamedTuple):
    items: list[Node]
    line: int
    column: int


class Entry(NamedTuple):
    key: ScalarNode
    value: Node


class MappingNode(NamedTuple):
    entries: dict[str, Entry]
    line: int
    column: int

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return entry.value if entry else None


Node: TypeAlias = ScalarNode | SequenceNode | MappingNode

_NO_KEY = ScalarNode("", 0, 0)


def text(node: Node | None) -> str:
    """A scalar as it was written, without the blank lines before it and the blanks after it."""
    return node.text.rstrip().lstrip("\r\n") if isinstance(node, ScalarNode) else ""


def optional_text(node: Node | None) -> str | None:
    """Like :func:`text`; ``None`` where there is none (also ``context: null`` and ``context: ~``)."""
    if isinstance(node, ScalarNode) and node.plain and node.text in ("null", "~"):
        return None
    return text(node) or None


def is_true(node: Node | None) -> bool:
    """Whether a scalar is YAML's ``true`` (core schema: in these three spellings, without quotes)."""
    return isinstance(node, ScalarNode) and node.plain and node.text in ("true", "True", "TRUE")


def load(path: Path, file: str, problems: list[InputError]) -> Node | None:
    """The tree of the YAML file at ``path``, or ``None`` for an empty one. ``file`` is its name in errors.

    Duplicate keys are added to ``problems``; raises ``InputError`` for what cannot be read at all.
    """
    return compose(decode(read_bytes(path, file), file), file, problems)


def read_bytes(path: Path, file: str, limit: int = MAX_BYTES) -> bytes:
    """The contents of a regular file of at most ``limit`` bytes."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise problem(file, START, "is not a regular file")
        size = facts.st_size
        if size <= limit:
            with path.open("rb", buffering=0) as stream:
                data = stream.readall()
            if (size := len(data)) <= limit:  # it may have grown
                return data
    except OSError as error:
        hint = "check that it exists and may be read"
        raise problem(file, START, f"cannot be read: {error.strerror}", hint) from error
    message = f"has {size / 2**20:.1f} MiB; at most {limit / 2**20:g} MiB are read"
    raise problem(file, START, message, "move long texts into documents, or divide the file into several leaves")


def decode(data: bytes, file: str) -> str:
    """UTF-8 (or UTF-16 with a byte order mark) as text."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        start = error.start + (3 if encoding == "utf-8-sig" and data.startswith(b"\xef\xbb\xbf") else 0)
        before = data[:start].decode(encoding, "replace")
        message = f"is not {'UTF-16' if encoding == 'utf-16' else 'UTF-8'} text (byte {start})"
        raise problem(file, Mark.after(before), message, "save the file as UTF-8") from error


def compose(text: str, file: str, problems: list[InputError]) -> Node | None:
    """The tree of ``text``. See :func:`load`."""
    if " \n" in text or "\t" in text or text.endswith(" "):  # there may be lines of blanks
        text = _BLANK_LINE.sub("", text)
    try:
        loader = _LOADER(text)  # pure-Python YAML reads ahead here
        try:
            return _Composer(text, file, problems).run(loader)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise explain(error, text, file) from error


class _Frame:
    """A collection being read: the sizes before it, the greatest height of a child, and a mapping's last key."""

    __slots__ = ("anchor", "awaits_key", "characters", "height", "key", "node", "nodes")

    def __init__(self, node: SequenceNode | MappingNode, anchor: str | None, nodes: int, characters: int) -> None:
        self.node = node
        self.anchor = anchor
        self.nodes = nodes
        self.characters = characters
        self.height = 0
        self.awaits_key = isinstance(node, MappingNode)
        self.key = _NO_KEY


class _Anchored(NamedTuple):
    """A node that aliases may repeat, with its expanded size."""

    node: Node
    nodes: int
    characters: int
    height: int


class _Composer:
    def __init__(self, text: str, file: str, problems: list[InputError]) -> None:
        self.file = file
        self.problems = problems
        self.frames: list[_Frame] = []
        self.anchors: dict[str, _Anchored] = {}
        self.nodes = 0
        self.characters = 0
        self.root: Node | None = None
        self.documents = 0
        odd = not text.isascii() and _YAML_BREAK.search(text)
        self.line_starts = line_starts(text) if odd else None

    def run(self, loader: Any) -> Node | None:
        """The root. Scalars come first and go the shortest way, because they are most of the nodes."""
        next_event, line_starts, frames = loader.get_event, self.line_starts, self.frames
        while True:
            event = next_event()
            kind = type(event)
            mark = event.start_mark
            line, column = mark.line + 1, mark.column + 1
            if line_starts is not None:
                line, column = Mark.at(mark.index, line_starts)
            if kind is ScalarEvent:
                value = event.value
                node = ScalarNode(value, line, column, not event.style)
                self.nodes += 1
                self.characters += len(value)
                if event.tag is not None or self.nodes > MAX_NODES or self.characters > MAX_CHARACTERS:
                    self._check_tag(event.tag, node)
                    self._grow(0, 0, node)
                if event.anchor is not None:
                    self.anchors[event.anchor] = _Anchored(node, 1, len(value), 0)
                frame = frames[-1] if frames else None
                if frame is not None and frame.awaits_key:
                    frame.awaits_key, frame.key = False, node
                else:
                    self._attach(node, 0)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._close()
            elif kind is MappingStartEvent:
                self._open(event, MappingNode({}, line, column))
            elif kind is SequenceStartEvent:
                self._open(event, SequenceNode([], line, column))
            elif kind is AliasEvent:
                self._alias(event.anchor, Mark(line, column))
            elif kind is DocumentStartEvent:
                self._document(Mark(line, column))
            elif kind is StreamEndEvent:
                root = self.root
                return None if isinstance(root, ScalarNode) and root.plain and not root.text else root

    def _document(self, at: Mark) -> None:
        self.documents += 1
        if self.documents > 1:
            hint = "keep one document per file: remove the `---` line"
            raise problem(self.file, at, "a second YAML document begins here", hint)

    def _open(self, event: Any, node: SequenceNode | MappingNode) -> None:
        if event.tag is not None:
            self._check_tag(event.tag, node)
        self.frames.append(_Frame(node, event.anchor, self.nodes, self.characters))
        self._grow(1, 0, node)
        if len(self.frames) > MAX_DEPTH:
            raise self._too_deep(node)

    def _close(self) -> None:
        frame = self.frames.pop()
        height = frame.height + 1
        if frame.anchor is not None:
            size = (self.nodes - frame.nodes, self.characters - frame.characters)
            self.anchors[frame.anchor] = _Anchored(frame.node, *size, height)
        self._attach(frame.node, height)

    def _alias(self, name: str, at: Mark) -> None:
        target = self.anchors.get(name)
        if target is None:
            hint = "put the text in quotes if it begins with `*`"
            raise problem(self.file, at, f"`*{name[:80]}` refers to nothing above it", hint)
        self._grow(target.nodes, target.characters, at)
        if len(self.frames) + target.height > MAX_DEPTH:
            raise self._too_deep(at)
        self._attach(target.node, target.height)

    def _attach(self, node: Node, height: int) -> None:
        """Hand a finished node to the collection it stands in."""
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        parent = frame.node
        if height:
            frame.height = max(frame.height, height)
        if isinstance(parent, SequenceNode):
            parent.items.append(node)
        elif frame.awaits_key:
            if not isinstance(node, ScalarNode):
                message = "a key must be a word, not a list or a mapping"
                raise problem(self.file, node, message, "put the text in quotes")
            frame.awaits_key, frame.key = False, node
        else:
            key = frame.key
            frame.awaits_key = True
            before = parent.entries.setdefault(key.text, Entry(key, node))
            if before.key is not key and len(self.problems) < MOST_FAULTS:
                message = f"the key `{key.text[:80]}` stands here twice, first at line {before.key.line}"
                self.problems.append(problem(self.file, key, message, "remove one of the two"))

    def _grow(self, nodes: int, characters: int, at: Placed) -> None:
        self.nodes += nodes
        self.characters += characters
        if self.nodes > MAX_NODES or self.characters > MAX_CHARACTERS:
            message = f"holds over {MAX_NODES} values or {MAX_CHARACTERS // 2**20} MiB of text, aliases expanded"
            raise problem(self.file, at, message, "divide the file, or write the aliases out")

    def _too_deep(self, at: Placed) -> InputError:
        message = f"is nested more than {MAX_DEPTH} levels deep"
        return problem(self.file, at, message, "a leaf needs five; check the brackets")

    def _check_tag(self, tag: str | None, at: Placed) -> None:
        if tag is not None and tag not in _TAGS:
            message = f"the YAML tag `{tag[:80]}` is not read"
            raise problem(self.file, at, message, "remove it, or put the text in quotes")

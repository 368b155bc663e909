"""YAML as a tree of nodes that know their line, for files written by people and not to be trusted.

The tree keeps every scalar as the *text that stands in the file*: ``no``, ``1e3`` and ``2024-01-01`` stay what was
typed, because YAML's guesses (false, 1000.0, a date) are never what an author of questions and answers means.

The tree is built from libyaml's events without recursion. Limits stop hostile input: file size, nesting depth, and
the number of nodes and characters *after* aliases are expanded. Duplicate keys are reported and the reading goes
on; what YAML itself cannot read ends the file with one error in plain words. Nothing is constructed from a tag.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml

from ilab.errors import InputError

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 50
MAX_NODES = 200_000
MAX_CHARACTERS = 16 * 2**20

_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")} | {
    "!"
}
_BLANK_LINE = re.compile(r"(?m)^[ \t]++$")  # a tab on an otherwise empty line is no reason to refuse a file
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


def problem(file: str, line: int, message: str, hint: str = "") -> InputError:
    """The error about one line of one file."""
    return InputError(message, where=f"{file}:{line}", hint=hint)


def text(node: Node | None) -> str:
    """A scalar as it was written, without the blank lines before it and the blanks after it."""
    return node.text.rstrip().lstrip("\r\n") if isinstance(node, ScalarNode) else ""


def optional_text(node: Node | None) -> str | None:
    """Like :func:`text`; ``None`` where there is none (also ``context: null`` and ``context: ~``)."""
    if isinstance(node, ScalarNode) and node.plain and node.text in ("null", "~"):
        return None
    return text(node) or None


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
            raise InputError("is not a regular file", where=file)
        if facts.st_size > limit:
            raise InputError(
                f"has {facts.st_size / 2**20:.1f} MiB; at most {limit / 2**20:g} MiB are read",
                where=file,
                hint="move long texts into documents, or divide the file into several leaves",
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", where=file, hint="check that it exists and may be read"
        ) from error


def decode(data: bytes, file: str) -> str:
    """UTF-8 (or UTF-16 with a byte order mark) as text."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise problem(file, line, f"is not UTF-8 text (byte {error.start})", "save the file as UTF-8") from error


def compose(text: str, file: str, problems: list[InputError]) -> Node | None:
    """The tree of ``text``. See :func:`load`."""
    try:
        loader = _LOADER(_BLANK_LINE.sub("", text))  # pure-Python YAML reads ahead here
        try:
            return _Composer(file, problems).run(loader)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _explain(error, text, file) from error


class _Frame(NamedTuple):
    """A collection being read; ``state`` holds the pending key and the greatest height of a child."""

    node: SequenceNode | MappingNode
    anchor: str | None
    nodes: int
    characters: int
    state: dict[str, Any]


class _Anchored(NamedTuple):
    node: Node
    nodes: int
    characters: int
    height: int


class _Composer:
    def __init__(self, file: str, problems: list[InputError]) -> None:
        self.file = file
        self.problems = problems
        self.frames: list[_Frame] = []
        self.anchors: dict[str, _Anchored] = {}
        self.nodes = 0
        self.characters = 0
        self.root: Node | None = None
        self.documents = 0

    def run(self, loader: Any) -> Node | None:
        while True:
            event = loader.get_event()
            line, column = event.start_mark.line + 1, event.start_mark.column + 1
            if isinstance(event, yaml.ScalarEvent):
                self._check_tag(event.tag, line)
                node = ScalarNode(event.value, line, column, event.style in (None, ""))
                self._grow(1, len(event.value), line)
                self._attach(node, _Anchored(node, 1, len(event.value), 0), event.anchor)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._check_tag(event.tag, line)
                self._open(event, line, column)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor, line)
            elif isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    raise problem(
                        self.file,
                        line,
                        "a second YAML document begins here",
                        "keep one document per file: remove the `---` line",
                    )
            elif isinstance(event, yaml.StreamEndEvent):
                return (
                    None if isinstance(self.root, ScalarNode) and self.root.plain and not self.root.text else self.root
                )

    def _open(self, event: Any, line: int, column: int) -> None:
        start = (self.nodes, self.characters)
        self._grow(1, 0, line)
        if len(self.frames) >= MAX_DEPTH:
            raise self._too_deep(line)
        node: SequenceNode | MappingNode = (
            MappingNode({}, line, column)
            if isinstance(event, yaml.MappingStartEvent)
            else SequenceNode([], line, column)
        )
        self.frames.append(_Frame(node, event.anchor, *start, {"key": None, "height": 0}))

    def _close(self) -> None:
        frame = self.frames.pop()
        size = _Anchored(
            frame.node, self.nodes - frame.nodes, self.characters - frame.characters, frame.state["height"] + 1
        )
        self._attach(frame.node, size, frame.anchor)

    def _alias(self, name: Any, line: int) -> None:
        target = self.anchors.get(name)
        if target is None:
            raise problem(
                self.file,
                line,
                f"`*{name}` refers to nothing above it",
                "put the text in quotes if it begins with `*`",
            )
        self._grow(target.nodes, target.characters, line)
        if len(self.frames) + target.height > MAX_DEPTH:
            raise self._too_deep(line)
        self._attach(target.node, target, None)

    def _attach(self, node: Node, size: _Anchored, anchor: str | None) -> None:
        """Hand a finished node to the collection it stands in."""
        if anchor is not None:
            self.anchors[anchor] = size
        if not self.frames:
            self.root = node
            return
        parent, state = self.frames[-1].node, self.frames[-1].state
        state["height"] = max(state["height"], size.height)
        if isinstance(parent, SequenceNode):
            parent.items.append(node)
        elif state["key"] is None:
            if not isinstance(node, ScalarNode):
                raise problem(
                    self.file, node.line, "a key must be a word, not a list or a mapping", "put the text in quotes"
                )
            state["key"] = node
        else:
            self._set(parent, state["key"], node)
            state["key"] = None

    def _set(self, parent: MappingNode, key: ScalarNode, value: Node) -> None:
        before = parent.entries.setdefault(key.text, Entry(key, value))
        if before.key is not key:
            message = f"the key `{key.text}` stands here twice, first at line {before.key.line}"
            self.problems.append(problem(self.file, key.line, message, "remove one of the two"))

    def _grow(self, nodes: int, characters: int, line: int) -> None:
        self.nodes += nodes
        self.characters += characters
        if self.nodes > MAX_NODES or self.characters > MAX_CHARACTERS:
            message = f"holds over {MAX_NODES} values or {MAX_CHARACTERS // 2**20} MiB of text, aliases expanded"
            raise problem(self.file, line, message, "divide the file, or write the aliases out")

    def _too_deep(self, line: int) -> InputError:
        return problem(
            self.file,
            line,
            f"is nested more than {MAX_DEPTH} levels deep",
            "a leaf needs five; check the brackets",
        )

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag is not None and tag not in _TAGS:
            raise problem(self.file, line, f"the YAML tag `{tag}` is not read", "remove it, or put the text in quotes")


_REASONS = {
    "mapping values are not allowed in this context": (
        "a `: ` stands where none can be",
        "put the text in quotes, or check the indentation",
    ),
    "did not find expected key": (
        "does not fit the indentation of the lines above",
        "line it up with its neighbours",
    ),
    "could not find expected ':'": (
        "is neither a `key: value` nor part of the text above",
        "add the `:`, or indent the line to make it part of the text above",
    ),
    "did not find expected '-' indicator": ("a list ends here without a new `- `", "check the indentation"),
    "found unexpected end of stream": ("a quotation mark is opened and never closed", "close it"),
    "did not find expected ',' or ']'": ("a `[` is opened and not closed", "close it, or put the text in quotes"),
    "did not find expected ',' or '}'": ("a `{` is opened and not closed", "close it, or put the text in quotes"),
    "did not find expected node content": ("a value is missing here, or a bracket is not closed", "complete it"),
    "found a tab character that violates indentation": (
        "a tab stands in the indentation",
        "use spaces: YAML allows no tabs there",
    ),
    "did not find expected <document start>": (
        "something follows the end of the document",
        "check the indentation",
    ),
    "block sequence entries are not allowed in this context": (
        "a list may not begin here",
        "begin the list on the next line",
    ),
}


def _explain(error: yaml.YAMLError, text: str, file: str) -> InputError:
    """The parser's complaint in plain words, at its line."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text.encode()[: error.position] if _LOADER is not yaml.SafeLoader else text[: error.position].encode()
        return problem(
            file,
            before.count(b"\n") + 1,
            "holds a control character",
            "remove it (an editor shows it as ^A or a box)",
        )
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return InputError(f"is not YAML: {error}", where=file)
    lines, mark = text.splitlines() or [""], error.problem_mark
    line = min(mark.line + 1, len(lines))
    context = error.context_mark.line + 1 if error.context_mark else line
    begun = f" (begun at line {context})" if context < line else ""
    if error.problem == "found character that cannot start any token":
        found = lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""
        if found == "\t":
            return problem(file, line, "a tab stands in the indentation", "use spaces: YAML allows no tabs there")
        return problem(file, line, f"text may not begin with `{found}`", "put the text in quotes")
    message, hint = _REASONS.get(error.problem or "", (f"is not YAML: {error.problem}", "check quotes and indentation"))
    return problem(file, line, message + begun, hint)

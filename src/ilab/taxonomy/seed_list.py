"""The seed examples of a ``qna.yaml`` that may be unfinished: what stands there, and drafts added behind it.

A form that is only half filled in is no leaf yet, so nothing here asks for a whole one. Drafts are put in as lines of
text; every other line stays what it was to the byte, comments and wrapping too. An example in which nothing is filled
in is a form, not an example: drafts take its place. Before the new text is handed out it is read again: it must hold
the old entries and the drafts, and nothing else may have changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ilab.errors import InputError
from ilab.taxonomy.check import plain
from ilab.taxonomy.yamlnodes import MappingNode, Node, ScalarNode, SequenceNode, compose, decode, is_true, read_bytes
from ilab.taxonomy.yamlnodes import text as scalar

SEEDS = "seed_examples"
WIDTH = 120  # columns at which a long question is wrapped
_RESOLVER: Any = yaml.resolver.Resolver()
_BREAKS = ("\n", "\r", "\x85", "\u2028", "\u2029")  # what ends a line in YAML 1.1
_LINE = re.compile(r"[^\n\r\x85\u2028\u2029]*(?:\r\n|[\n\r\x85\u2028\u2029]|\Z)")
_NO_LIST = re.compile(rf"{SEEDS}:[ \t]*(?:\[[ \t]*\]|null|~)?[ \t]*(?P<comment>#.*)?")


@dataclass(frozen=True)
class Draft:
    """A proposed seed example: a passage with pairs of question and answer. ``note`` says where it is from."""

    context: str
    pairs: tuple[tuple[str, str], ...]
    note: str


@dataclass(frozen=True)
class Written:
    """A seed example in the file, as far as it is filled in. ``draft``: it waits for a person, wholly or in part."""

    context: str
    pairs: tuple[tuple[str, str], ...]
    draft: bool
    line: int


@dataclass(frozen=True)
class Unfinished:
    """A ``qna.yaml`` as text and tree. ``name`` stands for the file in messages; forms are not among ``seeds``."""

    path: Path
    name: str
    text: str
    root: MappingNode
    seeds: tuple[Written, ...]

    @property
    def drafts(self) -> tuple[Written, ...]:
        return tuple(seed for seed in self.seeds if seed.draft)


def read_unfinished(path: Path, name: str) -> Unfinished:
    """The file at ``path``. Raises ``InputError`` where it is no YAML mapping."""
    return _unfinished(path, name, decode(read_bytes(path, name), name))


def _unfinished(path: Path, name: str, text: str) -> Unfinished:
    faults: list[InputError] = []
    root = compose(text, name, faults)
    if faults:
        raise faults[0]
    if not isinstance(root, MappingNode):
        hint = "make a form with: ilab taxonomy new"
        raise InputError("is no leaf: it has no `key: value` lines", where=name, hint=hint)
    seeds = [_written(entry) for entry in _entries(root) if not _is_form(entry)]
    return Unfinished(path, name, text, root, tuple(seeds))


def with_drafts(leaf: Unfinished, drafts: Sequence[Draft]) -> str:
    """The file's text with ``drafts`` behind its seed examples, in place of forms that nobody has filled in.

    Raises ``InputError`` where the list is written in a way that no lines can be added to.
    """
    lines = _LINE.findall(leaf.text)[:-1]  # the last match is empty
    if lines and not lines[-1].endswith(_BREAKS):
        lines[-1] += "\n"
    seeds = leaf.root.get(SEEDS)
    if lines[leaf.root.line - 1][leaf.root.column - 1 :][:1] == "{":
        raise _unsuitable(leaf)
    if not isinstance(seeds, SequenceNode) or not seeds.items:
        added = _first(lines, leaf, _lines(shown(drafts), leaf.text))
    elif _is_dash(lines[seeds.line - 1], seeds.column - 1):
        added = _behind(lines, seeds, leaf.root, _lines(shown(drafts, seeds.column), leaf.text))
    else:
        raise _unsuitable(leaf)
    text = "".join(added)
    _verify(leaf, text, drafts)
    return text


def shown(drafts: Sequence[Draft], column: int = 3) -> str:
    """``drafts`` as YAML list entries whose dashes stand in ``column`` (1-based)."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.scalarstring import LiteralScalarString

    entries = []
    for draft in drafts:
        pairs = [{"question": _quoted(question), "answer": _quoted(answer)} for question, answer in draft.pairs]
        context = LiteralScalarString(draft.context.strip("\n") + "\n")
        entry = CommentedMap(context=context, questions_and_answers=pairs, draft=True)
        entry.yaml_add_eol_comment(" ".join(draft.note.split()), key="draft")
        entries.append(entry)
    emitter = YAML()
    emitter.width = WIDTH
    emitter.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    emitter.dump(entries, stream)
    indent = " " * (column - 1)
    return "\n".join(indent + line[2:] if line.strip() else "" for line in stream.getvalue().rstrip("\n").split("\n"))


def _quoted(text: str) -> str:
    """``text``, to be put in quotes where YAML 1.1 would read it as something else (``no``, ``1:30``)."""
    from ruamel.yaml.scalarstring import SingleQuotedScalarString

    is_text = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str"
    return text if is_text else SingleQuotedScalarString(text)


def _lines(text: str, like: str) -> list[str]:
    """The lines of ``text``, each with the line end that the text ``like`` has."""
    end = "\r\n" if "\r\n" in like else "\n"
    return [f"{line}{end}" for line in text.split("\n")]


def _entries(root: MappingNode) -> list[Node]:
    seeds = root.get(SEEDS)
    return seeds.items if isinstance(seeds, SequenceNode) else []


def _is_form(node: Node) -> bool:
    """Whether nothing at all is filled in."""
    if isinstance(node, ScalarNode):
        return not node.text.strip()
    if isinstance(node, SequenceNode):
        return all(_is_form(item) for item in node.items)
    return all(key == "draft" or _is_form(entry.value) for key, entry in node.entries.items())


def _written(node: Node) -> Written:
    if not isinstance(node, MappingNode):
        return Written("", (), False, node.line)
    listed = node.get("questions_and_answers")
    pairs = [
        one for one in (listed.items if isinstance(listed, SequenceNode) else [node]) if isinstance(one, MappingNode)
    ]
    marked = any(is_true(one.get("draft")) for one in (node, *pairs))
    texts = tuple((scalar(pair.get("question")), scalar(pair.get("answer"))) for pair in pairs)
    return Written(scalar(node.get("context")), texts, marked, node.line)


def _is_dash(line: str, at: int) -> bool:
    """Whether a list entry begins in this line, its dash at the index ``at``."""
    return line[at : at + 1] == "-" and not line[:at].strip()


def _behind(lines: list[str], seeds: SequenceNode, root: MappingNode, new: list[str]) -> list[str]:
    """``lines`` with ``new`` ones behind the last entry, without the entries that are forms."""
    at = seeds.column - 1
    following = [entry.key.line - 1 for entry in root.entries.values() if entry.key.line > seeds.line]
    ends = min(following, default=len(lines))
    starts = [_start(lines, item.line - 1, at) for item in seeds.items]
    stops = [_last(lines, start, stop, at) for start, stop in zip(starts, [*starts[1:], ends], strict=True)]
    kept = lines[: stops[-1]]
    for item, start, stop in reversed(list(zip(seeds.items, starts, stops, strict=True))):
        if _is_form(item):
            del kept[start:stop]
    return [*kept, *new, *lines[stops[-1] :]]


def _start(lines: list[str], line: int, at: int) -> int:
    """The line of the dash that an entry begins with."""
    while line > 0 and not _is_dash(lines[line], at):
        line -= 1
    return line


def _last(lines: list[str], start: int, stop: int, at: int) -> int:
    """The line behind an entry, without blank lines and comments that belong to what follows.

    A line that begins with ``#`` and is indented deeper than the dash may be part of a text: it stays.
    """
    while stop > start + 1:
        line = lines[stop - 1]
        indent = len(line) - len(line.lstrip())
        if line.strip() and line.strip() != "..." and not (line.lstrip().startswith("#") and indent <= at):
            break
        stop -= 1
    return stop


def _first(lines: list[str], leaf: Unfinished, new: list[str]) -> list[str]:
    """``lines`` with ``new`` ones as the first entries of the list, which is empty or not there."""
    entry = leaf.root.entries.get(SEEDS)
    if entry is None:
        end = _last(lines, 0, len(lines), 0)
        return [*lines[:end], *_lines(f"\n{SEEDS}:", leaf.text), *new, *lines[end:]]
    at = entry.key.line - 1
    match = _NO_LIST.fullmatch(lines[at].rstrip())
    if match is None:
        raise _unsuitable(leaf)
    comment = f"  {match['comment']}" if match["comment"] else ""
    return [*lines[:at], *_lines(f"{SEEDS}:{comment}", leaf.text), *new, *lines[at + 1 :]]


def _unsuitable(leaf: Unfinished) -> InputError:
    hint = f"write it with dashes, an entry below `{SEEDS}:` each (`  - context: …`)"
    return InputError(f"nothing can be added to `{SEEDS}` as it is written here", where=leaf.name, hint=hint)


def _verify(leaf: Unfinished, text: str, drafts: Sequence[Draft]) -> None:
    """Read the new text again: the old entries, then the drafts, and all else as before."""
    old = {key: plain(entry.value) for key, entry in leaf.root.entries.items()}
    wanted: list[Any] = [plain(entry) for entry in _entries(leaf.root) if not _is_form(entry)]
    for draft in drafts:
        pairs = [{"question": question.strip(), "answer": answer.strip()} for question, answer in draft.pairs]
        wanted.append({"context": draft.context.strip(), "questions_and_answers": pairs, "draft": "true"})
    try:
        new = {key: plain(entry.value) for key, entry in _unfinished(leaf.path, leaf.name, text).root.entries.items()}
    except InputError as error:
        raise _unsuitable(leaf) from error
    if new != {**old, SEEDS: wanted}:
        raise _unsuitable(leaf)

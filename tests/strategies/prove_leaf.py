"""What must hold of any file that lies where a leaf, its held-out questions or its attribution may lie.

It is read, or every reason why not is told with a place in the file; nothing else is raised. What was read is a
record like any other, is told from a terminal without control characters, and survives ``taxonomy fix`` unchanged.
Run by :mod:`sandbox` in a process whose current folder is its own.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from hostile_yaml import SKILL

from ilab.cli import findings
from ilab.data import Leaf
from ilab.errors import InputError
from ilab.taxonomy.fix import fix_text
from ilab.taxonomy.layout import Layout
from ilab.taxonomy.lint import lint
from ilab.taxonomy.read import read_leaves
from ilab.taxonomy.yamlnodes import MAX_BYTES

# What ends a line: to most editors, to some, and to YAML 1.1 (section 4.1). A place may be told in any of these ways.
_LINE_ENDS = tuple(map(re.compile, ("\n", "\r\n|[\n\r]", "\r\n|[\n\r\x85\u2028\u2029]")))
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BLANKS = re.compile("[ \t](?:[\n\r]|$)")
_LONGEST = 1000  # characters of one message


def prove(data: bytes, name: bytes) -> str:
    """Read, lint, show and fix the file ``name`` of contents ``data``; what became of it in one word."""
    file = Path(name.decode().replace("/", "-"), name.decode())  # each in a taxonomy of its own
    leaf_file = file.with_name("qna.yaml")
    if not leaf_file.exists():
        leaf_file.parent.mkdir(parents=True)
        leaf_file.write_text(SKILL, encoding="utf-8")
    file.write_bytes(data)
    layout = Layout(Path(file.parts[0]).resolve(), (leaf_file.resolve(),))
    leaves, problems = read_leaves(layout)
    shapes = _shapes(data)
    for found in problems:
        _is_told_well(found, shapes)
    assert bool(leaves) != bool(problems)
    for leaf in leaves:
        assert Leaf.model_validate_json(leaf.model_dump_json()) == leaf
        assert leaf.seeds and all(pair.question and pair.answer for seed in leaf.seeds for pair in seed.pairs)
    warnings = lint(leaves)
    for warning in warnings:
        assert warning.message and warning.code
        if leaf_file == file:
            _is_inside(warning.place.line, warning.place.column, shapes)
    _is_shown_well([*findings.of_errors(problems, layout.root), *findings.of_warnings(warnings)], layout.root)
    fixed = _is_fixed_well(data, name.decode(), layout, leaves) if file.suffix == ".yaml" else ""
    return f"{'read' if leaves else 'refused'}{fixed}"


def _decoded(data: bytes) -> str:
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def _shapes(data: bytes) -> list[list[int]]:
    """For each way to count lines: the length of every line."""
    return [[len(line) for line in ends.split(_decoded(data))] for ends in _LINE_ENDS]


def _is_inside(line: int, column: int, shapes: list[list[int]]) -> None:
    inside = [1 <= line <= len(shape) and 1 <= column <= shape[line - 1] + 1 for shape in shapes]
    assert any(inside), (line, column, [shape[line - 2 : line + 1] for shape in shapes])


def _is_told_well(found: InputError, shapes: list[list[int]]) -> None:
    assert isinstance(found, InputError)
    assert found.message.strip() and len(found.message) + len(found.hint) <= _LONGEST, found
    place = re.fullmatch(r"[^:]+(?::(\d+):(\d+))?", found.where)
    assert place, found.where
    if place[1] is None:
        assert f"at most {MAX_BYTES // 2**20} MiB" in found.message, found
    else:
        _is_inside(int(place[1]), int(place[2]), shapes)


def _is_shown_well(found: list[findings.Finding], root: Path) -> None:
    """A terminal obeys nothing of it, and each finding begins a line of its own."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        findings.show(found, root)
    text = out.getvalue()
    assert not _UNSEEN.search(text), ascii(text)
    text.encode()
    assert len([line for line in text.split("\n") if re.match(r"[^ ].*: (?:error|warning): ", line)]) == len(found)


def _is_fixed_well(data: bytes, name: str, layout: Layout, leaves: tuple[Leaf, ...]) -> str:
    """What could be read teaches the same afterwards, what is mended can be read, and once is enough."""
    fixed = fix_text(data, name)
    if fixed.problem is not None:
        assert isinstance(fixed.problem, InputError) and fixed.problem.message.strip()
        assert fixed.text == data, "what cannot be mended is left alone"
        return ""
    again = fix_text(fixed.text, name)
    assert (again.text, again.changes, again.problem) == (fixed.text, (), None)
    (layout.root / name).write_bytes(fixed.text)
    after, _ = read_leaves(layout)
    if leaves and fixed.text != data:
        longer = any("cut" in change.what for change in fixed.changes)
        assert longer or _BLANKS.search(_decoded(data)) or after[0].digest == leaves[0].digest
        assert len(after) == len(leaves), fixed.text
        for old, new in zip(_texts(leaves[0]), _texts(after[0]), strict=True):
            assert new == old or (longer and new.startswith(old) and new[len(old) :].lstrip().startswith("#")), (
                old,
                new,
            )
    return ", mended" if fixed.changes else ""


def _texts(leaf: Leaf) -> list[str]:
    """All that the leaf says, with single blanks between words: blanks at the ends of lines may go."""
    pairs = [(pair.question, pair.answer) for seed in leaf.seeds for pair in seed.pairs]
    documents = [[*ref.patterns, *ref.urls, *filter(None, (ref.repo, ref.commit, ref.text))] for ref in leaf.documents]
    items = [[item.question, item.context or "", item.gold, *item.options] for item in leaf.items]
    rest = [[seed.context or "" for seed in leaf.seeds], [leaf.task, leaf.domain, leaf.outline, leaf.created_by]]
    return [" ".join(text.split()) for texts in (*pairs, *documents, *items, *rest) for text in texts]

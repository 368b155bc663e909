"""``ilab taxonomy upgrade``: files of versions 1 and 2 become version 3, on the text, with everything else as it was.

Skills get the version line and, where it is empty, a ``task_description``. Knowledge changes its form as well:

    task_description: …                       document_outline: …
    seed_examples:                            seed_examples:
      - question: …        ── passages ──▶      - context: |
        answer: …                                   the passage that both pairs rest on
      - question: …                               questions_and_answers:
        answer: …                                   - question: …

What version 3 asks for and the file does not have is told, and the file is left alone; or it is written all the same,
with what a person must complete marked as drafts. Before the new text is handed out it is read again: the same pairs,
the same comments, and by the rules of version 3 all right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from ilab.errors import InputError, InputErrors
from ilab.taxonomy.check import check, plain
from ilab.taxonomy.rewrite import BLANK_LINE, Change, comments
from ilab.taxonomy.support import Passages
from ilab.taxonomy.support import Support as Found
from ilab.taxonomy.version3 import Form, Seed, title_from
from ilab.taxonomy.yamlnodes import MappingNode, Node, ScalarNode, SequenceNode, compose, is_true, optional_text
from ilab.taxonomy.yamlnodes import text as scalar

SEEDS, PAIRS = 5, 3  # that version 3 wants at least: seed examples of a leaf, pairs of a seed example of knowledge
_READABLE = re.compile("[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
_NO_VALUE = ScalarNode("3", 1, 1)


@dataclass(frozen=True)
class Upgraded:
    """The new text, or the old one where nothing changes. ``missing``: what version 3 asks for and the file lacks.

    ``drafts`` counts the places that are marked for a person to complete.
    """

    text: str
    changes: tuple[Change, ...] = ()
    missing: tuple[InputError, ...] = ()
    drafts: int = 0


@dataclass(frozen=True)
class _Old:
    """A file of version 1 or 2 that the loader has read. ``text`` has LF, and no blanks in its empty lines."""

    name: str
    text: str
    kind: Literal["knowledge", "skill"]
    node: MappingNode

    @property
    def seeds(self) -> tuple[MappingNode, ...]:
        listed = self.node.get("seed_examples")
        items = listed.items if isinstance(listed, SequenceNode) else ()
        return tuple(item for item in items if isinstance(item, MappingNode))

    def at(self, key: str) -> str:
        """The place of an entry, for errors; of the whole file where it is missing."""
        node: Node = self.node.get(key) or self.node
        return place(self.name, node)


def place(name: str, node: Node) -> str:
    """``file:line:column`` of a node."""
    return f"{name}:{node.line}:{node.column}"


def wants_passages(text: str, name: str) -> bool:
    """Whether the file is knowledge of an older version, so that its documents are needed. Raises as ``upgrade``."""
    old = _read(text, name)
    return old is not None and old.kind == "knowledge"


def upgrade_text(text: str, name: str, passages: Sequence[str] = (), *, drafts: bool = False) -> Upgraded:
    """``text`` of the file ``name`` in the form of version 3; of version 3 already, it stays as it is.

    ``passages`` are those of the leaf's documents; they become contexts word for word. With ``drafts`` the new form is
    written even where something is missing. Raises ``InputErrors`` for a file that has mistakes of its own, and
    ``InputError`` for one that is written in brackets.
    """
    old = _read(text, name)
    if old is None:
        return Upgraded(text)
    form = Form(old.text, name)
    form.set_version()
    changes = [_version_change(old)]
    title = ""
    if not optional_text(old.node.get("task_description")):
        title = title_from(PurePosixPath(name).parent.name or "untitled")
        form.set_text("task_description", title)
        changes.append(Change(_line(old, "task_description"), f"`{title}` proposed, because it was empty"))
    marks, missing = _knowledge(old, form, passages, changes) if old.kind == "knowledge" else _skill(old, form, title)
    if missing and not drafts:
        return Upgraded(text, missing=tuple(missing))
    new = form.text()
    _verify(old, new, complete=not missing, title=title)
    return Upgraded(
        new, tuple(sorted(changes, key=lambda change: change.line)), tuple(missing), marks if missing else 0
    )


def _read(text: str, name: str) -> _Old | None:
    """The file, ``None`` where it has version 3. Raises ``InputErrors`` for mistakes."""
    problems: list[InputError] = []
    text = BLANK_LINE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    node = compose(text, name, problems)
    if not isinstance(node, MappingNode):
        raise InputError("holds no leaf", where=f"{name}:1:1", hint="write the leaf, or remove the file")
    version = node.get("version")
    if scalar(version) == "3" and not problems:
        return None
    if version is not None and scalar(version) not in ("1", "2"):
        hint = "write the version by which the file was made: 1, 2 or 3"
        problems.append(InputError("`version` is none that is known", where=place(name, version), hint=hint))
    knowledge = name.startswith("knowledge/") or "document" in node.entries
    kind: Literal["knowledge", "skill"] = "knowledge" if knowledge else "skill"
    check(node, kind, name, problems)
    if problems:
        raise InputErrors(problems)
    return _Old(name, text, kind, node)


def _skill(old: _Old, form: Form, title: str) -> tuple[int, list[InputError]]:
    """How many drafts were marked, and what version 3 finds missing."""
    entries = dict(old.node.entries)
    key = old.node.entries["seed_examples"].key
    entries["version"] = entries["seed_examples"]._replace(key=key, value=_NO_VALUE)
    if title:
        entries["task_description"] = entries["task_description"]._replace(value=_NO_VALUE._replace(text=title))
    missing: list[InputError] = []
    check(old.node._replace(entries=entries), "skill", old.name, missing)
    more = SEEDS - sum(not is_true(seed.get("draft")) for seed in old.seeds)
    if more > 0:
        form.add_skill_form(more, grounded=any(optional_text(seed.get("context")) for seed in old.seeds))
    return int(more > 0), missing


def _knowledge(old: _Old, form: Form, passages: Sequence[str], changes: list[Change]) -> tuple[int, list[InputError]]:
    """How many drafts were marked, and what is missing: clear passages, pairs under each, passages at all."""
    form.rename("task_description", "document_outline")
    changes.append(Change(_line(old, "task_description"), "`task_description` is called `document_outline`"))
    texts = [text for text in map(_as_context, passages) if text]
    texts = list(dict.fromkeys(texts))
    index = Passages(texts)
    found = [index.support(scalar(seed.get("question")), scalar(seed.get("answer"))) for seed in old.seeds]
    seeds = _grouped(old, found, texts)
    more = max(0, SEEDS - len(seeds))
    form.group(seeds, more)
    pairs = f"{len(found)} pair(s) stand under {len(seeds)} passage(s) of the documents"
    changes.append(Change(_line(old, "seed_examples"), pairs))
    marks = sum(seed.unsure + bool(seed.more) for seed in seeds) + (2 if more else 0)
    return marks, _missing(old, found, seeds, len(texts))


def _grouped(old: _Old, found: Sequence[Found | None], texts: Sequence[str]) -> list[Seed]:
    """The pairs under their passages, in the order of the first pair of each; unclear ones are never mixed with clear.

    A pair that is a draft does not count.
    """
    groups: dict[tuple[bool, int], list[int]] = {}
    for at, support in enumerate(found):
        key = (support.clear, support.passage) if support else (False, -1 - at)
        groups.setdefault(key, []).append(at)
    return [
        Seed(
            texts[passage] if passage >= 0 else "",
            tuple(pairs),
            unsure=not clear,
            more=max(0, PAIRS - sum(not is_true(old.seeds[at].get("draft")) for at in pairs)),
        )
        for (clear, passage), pairs in groups.items()
    ]


def _missing(old: _Old, found: Sequence[Found | None], seeds: Sequence[Seed], passages: int) -> list[InputError]:
    """What a person has to add, each with its place in the old file."""
    missing = []
    if not passages:
        message = f"{len(found)} pair(s) have no context, and no document is at hand to take it from"
        hint = "put the documents beside the file or map their repository (where.documents.mirrors)"
        missing.append(InputError(message, where=old.at("seed_examples"), hint=hint))
    for pair, support in zip(old.seeds, found, strict=True) if passages else ():
        if support is None or not support.clear:
            share = f"the best holds {support.share:.0%} of its words" if support else "none shares a word with it"
            message = f"no passage of the documents clearly answers `{_shown(scalar(pair.get('question')))}`: {share}"
            hint = "give the passage yourself, or reword the pair after the document"
            missing.append(InputError(message, where=place(old.name, pair), hint=hint))
    for seed in seeds:
        if seed.more and not seed.unsure:
            message = f"the passage `{_shown(seed.context)}` has {PAIRS - seed.more} of the {PAIRS} pairs it needs"
            hint = f"write {seed.more} more about it"
            missing.append(InputError(message, where=place(old.name, old.seeds[seed.pairs[0]]), hint=hint))
    clear = sum(not seed.unsure for seed in seeds)
    if passages and clear < SEEDS:
        message = f"version 3 wants pairs about {SEEDS} passages of the documents or more; clear so far: {clear}"
        hint = f"write {PAIRS} pairs about each of {SEEDS - clear} more"
        missing.append(InputError(message, where=old.at("seed_examples"), hint=hint))
    return missing


def _verify(old: _Old, new: str, *, complete: bool, title: str) -> None:
    """Raise unless ``new`` teaches what ``old`` does, and passes where nothing is missing."""
    problems: list[InputError] = []
    node = compose(new, old.name, problems)
    if isinstance(node, MappingNode) and complete:
        check(node, old.kind, old.name, problems)
    kept = [key for key in old.node.entries if key not in ("version", "task_description", "seed_examples")]
    same = (
        isinstance(node, MappingNode)
        and not problems
        and scalar(node.get("version")) == "3"
        and all(key in node.entries and _told(node, key) == _told(old.node, key) for key in kept)
        and _outline(node, old.kind) == (title or _outline(old.node, "skill"))
        and _pairs(node) == _pairs(old.node)
        and not Counter(comments(old.text)) - Counter(comments(new))
    )
    if not same:
        hint = "upgrade it by hand (docs: write a leaf), and tell the makers of ilab"
        raise InputError("is left alone: not everything in it would be kept", where=f"{old.name}:1:1", hint=hint)


def _told(node: MappingNode, key: str) -> object:
    value = node.get(key)
    return plain(value) if value is not None else None


def _outline(node: MappingNode, kind: str) -> str:
    return optional_text(node.get("document_outline" if kind == "knowledge" else "task_description")) or ""


def _pairs(node: MappingNode) -> Counter[tuple[str, ...]]:
    """Question, answer, draft mark and, for skills, the context of every pair that is no empty form."""
    listed = node.get("seed_examples")
    found: Counter[tuple[str, ...]] = Counter()
    for seed in listed.items if isinstance(listed, SequenceNode) else ():
        if not isinstance(seed, MappingNode):
            continue
        inner = seed.get("questions_and_answers")
        context = "" if inner is not None else scalar(seed.get("context"))
        for pair in inner.items if isinstance(inner, SequenceNode) else (seed,):
            if isinstance(pair, MappingNode) and (scalar(pair.get("question")) or scalar(pair.get("answer"))):
                texts = (scalar(pair.get(key)) for key in ("question", "answer", "draft"))
                found[(*texts, context)] += 1
    return found


def _version_change(old: _Old) -> Change:
    version = scalar(old.node.get("version"))
    return Change(_line(old, "version"), f"version {version or '1 (none was given)'} becomes 3")


def _line(old: _Old, key: str) -> int:
    return (old.node.get(key) or old.node).line


def _as_context(passage: str) -> str:
    """The passage as a block text can hold it; "" for one with characters that it cannot hold."""
    lines = [line.rstrip() for line in passage.split("\n")]
    while lines and not lines[0]:
        del lines[0]
    text = "\n".join(lines).rstrip()
    return text if _READABLE.fullmatch(text) else ""


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"

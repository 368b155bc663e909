"""Held-out questions, passages and training rows from files of people's, for looking at them before a build does.

    *.jsonl, *.csv …   rows of question, options (or choices), answer; optional leaf, split, context, id
    eval.yaml          as it stands beside a ``qna.yaml``
    a folder           of tasks as InstructLab's data generation writes them, or ``ilab evaluate export-tasks``

What cannot be read as a question is counted by reason, so that nothing vanishes silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from ilab.core.tables import FORMS, read_table
from ilab.data import Chunk, Item, ItemKind, digest_text, short
from ilab.errors import InputError
from ilab.evaluation.benchmarks.mmlu_branch import find_tasks, read_branch
from ilab.evaluation.mcq_text import Unread, find_gold

LEAF = "items"  # of rows that name none
TEXTS = (".md", ".txt", ".markdown")


def read_item_files(path: Path) -> tuple[list[Item], Counter[str]]:
    """The questions in ``path``, and those left out by reason. Raises ``InputError`` where nothing can be read."""
    if path.is_dir():
        return _of_tasks(path)
    if path.suffix in (".yaml", ".yml"):
        return _of_rows(_eval_rows(path), path)
    return _of_rows(list(read_table(path)), path)


def read_passages(paths: Sequence[Path], leaves: Iterable[str]) -> list[Chunk]:
    """Text files, or those below folders, by paragraphs: each is a passage of every one of ``leaves``."""
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise InputError("there is no such file or folder", where=str(missing[0]), hint="--documents FILE|DIR")
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    chunks = []
    for file in files:
        if not file.is_file() or (file.suffix.lower() not in TEXTS and file not in paths):
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read: {error}", where=str(file), hint="give Markdown or plain text") from error
        chunks += [_chunk(part, text, file) for part in filter(str.strip, text.split("\n\n"))]
    return [chunk.model_copy(update={"leaf": leaf}) for leaf in sorted(set(leaves)) for chunk in chunks]


def read_questions(path: Path) -> list[str]:
    """What training rows ask: the user's messages, else the column ``question``, ``user`` or ``instruction``."""
    found = []
    for row in read_table(path):
        messages = row.get("messages")
        if isinstance(messages, list):
            found += [
                str(one.get("content")) for one in messages if isinstance(one, dict) and one.get("role") == "user"
            ]
        else:
            found += [str(row[name]) for name in ("question", "user", "instruction", "user_input") if row.get(name)][:1]
    return found


def _chunk(part: str, text: str, file: Path) -> Chunk:
    start = text.index(part)
    return Chunk(
        id=short(digest_text(part)),
        leaf=LEAF,
        document=short(digest_text(text)),
        source=str(file),
        heading=(),
        span=(start, start + len(part)),
        text=part,
        tokens=len(part.split()),
    )


def _of_tasks(path: Path) -> tuple[list[Item], Counter[str]]:
    branch = read_branch(find_tasks(path))
    items = [
        Item(
            id=one.id,
            leaf=one.group,
            split="test",
            kind="mcq",
            question=one.question,
            options=one.options,
            gold=one.options[one.gold],
            cluster=one.cluster or one.id,
            origin="task",
        )
        for one in branch.questions
    ]
    left_out: Counter[str] = sum(branch.dropped.values(), Counter())
    return items, left_out


def _eval_rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    rows = content.get("items") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError("an eval.yaml has a list of `items`", where=str(path), hint="see ilab taxonomy new --help")
    return rows


def _of_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> tuple[list[Item], Counter[str]]:
    items, left_out, seen = [], Counter[str](), Counter[str]()
    for number, row in enumerate(rows, 1):
        found = _item(row, f"{path}: row {number}")
        if isinstance(found, str):
            left_out[found] += 1
            continue
        seen[found.id] += 1
        again = seen[found.id]
        items.append(found if again == 1 else found.model_copy(update={"id": f"{found.id}-{again}"}))
    if not items:
        raise InputError(
            "there is no question here",
            where=str(path),
            hint=f"rows of question, options and answer in {', '.join(FORMS)}, an eval.yaml, or a folder of tasks",
        )
    return items, left_out


def _item(row: Mapping[str, Any], where: str) -> Item | str:
    """A row as an item, with whatever is wrong in it: that is looked for later. A reason where it is no question."""
    options = row.get("options", row.get("choices")) or ()
    question = row.get("question", row.get("user_input"))
    answer = row.get("gold", row.get("answer", row.get("reference")))
    if not isinstance(question, str) or not isinstance(options, (list, tuple)):
        return "a row has no question"
    texts = tuple(str(option) for option in options)
    gold = _gold(texts, answer)
    leaf = str(row.get("leaf") or row.get("subject") or LEAF)
    identity = str(row.get("id") or f"{leaf}/{short(digest_text(chr(0).join((question, *texts, gold))))}")
    kind = str(row.get("kind") or ("mcq" if texts else "exact"))
    try:
        return Item(
            id=identity,
            leaf=leaf,
            split="dev" if row.get("split") == "dev" else "test",
            kind=cast(ItemKind, kind),
            question=question,
            context=row.get("context") or None,
            options=texts,
            gold=gold,
            cluster=str(row.get("cluster") or row.get("about") or identity),
            unanswerable=bool(row.get("unanswerable", False)),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", where=where) from error


def _gold(options: tuple[str, ...], answer: Any) -> str:
    """The right answer as text; as it stands where it names no option, so that it is found to be none of them."""
    if isinstance(answer, int) and not isinstance(answer, bool) and options and str(answer) not in options:
        return options[answer] if 0 <= answer < len(options) else str(answer)
    text = "" if answer is None else str(answer)
    if options and text not in options and text.strip():
        place = find_gold(options, text)
        return text if isinstance(place, Unread) else options[place]
    return text

"""The general suite: questions that have nothing to do with the taxonomy. Did training cost what the base knew?

It is multiple choice, scored like a leaf's own items, under leaves named ``general/SUBJECT``. ``builtin`` is our own
set (arithmetic, language, geography, science, reasoning and the like: plain facts that any language model may know);
any table with a question, its options and the answer stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import ascii_letters, ascii_uppercase
from typing import Any

from ilab.core.step import Found, fingerprint
from ilab.core.tables import read_table
from ilab.data import Item, digest_text, short
from ilab.errors import InputError
from ilab.evaluation.compare import GENERAL

BUILTIN = "builtin"
HINT = "columns: question, choices (or options), answer (a text, a letter or a number from 0), subject"


def find_general(locator: str, folder: Path) -> Found:
    """Resolve a suite: ``builtin``, or a table relative to ``folder``. Reads all of it: mistakes are told at once."""
    if locator == BUILTIN:
        path = Path(str(files("ilab.evaluation.benchmarks").joinpath("questions", "general.jsonl")))
    else:
        path = folder / Path(locator).expanduser()
        if not path.is_file():
            raise InputError(f"no such file of questions: {locator}", where="eval_general", hint=HINT)
    items = [item.model_dump(mode="json") for item in read_general(path)]
    return Found(f"general:{fingerprint(items)}", locator, details={"path": str(path)})


def read_general(path: Path) -> list[Item]:
    """The suite's items, in the table's order. Raises ``InputError`` with file and row for what is no question."""
    items = list(_items(read_table(path), path))
    if not items:
        raise InputError("holds no question", where=str(path), hint=HINT)
    return items


def with_shots(items: Sequence[Item], count: int) -> list[Item]:
    """Each of ``items`` with ``count`` others of its subject before it, solved; fewer where the subject has no more.

    They are the next ones in the suite's order, from the start again at its end: the same for every model. The suite
    has no questions apart for this, so they come from itself, as lm-evaluation-harness does for such tasks.
    """
    if not count:
        return list(items)
    subjects: dict[str, list[Item]] = {}
    for item in items:
        subjects.setdefault(item.leaf, []).append(item)
    made = []
    for item in items:
        peers = subjects[item.leaf]
        at = peers.index(item)
        others = [other for other in (*peers[at + 1 :], *peers[:at]) if other.question != item.question][:count]
        made.append(item.model_copy(update={"shots": tuple((other.question, other.gold) for other in others)}))
    return made


def _items(rows: Iterable[Mapping[str, Any]], path: Path) -> Iterable[Item]:
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        item = _item(row, f"{path}, row {number}")
        if item.id not in seen:  # the same question twice would count twice
            seen.add(item.id)
            yield item


def _item(row: Mapping[str, Any], where: str) -> Item:
    question = str(row.get("question") or "").strip()
    options = _options(row.get("choices", row.get("options")))
    if not question or len(options) < 2 or len(set(options)) < len(options) or "" in options:
        raise InputError("not a question with two or more different options", where=where, hint=HINT)
    gold = _gold(row.get("answer"), options, where)
    subject = str(row.get("subject") or "all").strip().replace("/", " ")
    leaf = f"{GENERAL}/{subject}"
    identity = f"{leaf}/{short(digest_text(question + chr(0) + chr(0).join(options)))}"
    return Item(
        id=identity,
        leaf=leaf,
        split="test",
        kind="mcq",
        question=question,
        options=options,
        gold=gold,
        cluster=identity,
        origin=GENERAL,
    )


def _options(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):  # a CSV cell
        given = given.split("|")
    return tuple(str(one).strip() for one in given) if isinstance(given, Sequence) else ()


def _gold(answer: Any, options: Sequence[str], where: str) -> str:
    """The right option's text: ``answer`` is that text, a letter, or a number from 0.

    A number goes by place, as in the public sets, also where an option is a number; text goes by text first.
    """
    text = str(answer).strip()
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return options[answer]
    if text in options:
        return text
    letter = len(text) == 1 and text in ascii_letters
    at = ascii_uppercase.index(text.upper()) if letter else int(text) if text.isdecimal() else -1
    if not 0 <= at < len(options):
        raise InputError(f"the answer {text[:60]!r} is none of the options", where=where, hint=HINT)
    return options[at]

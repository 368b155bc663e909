"""Keeps published benchmarks out of training: what a file of questions shares with a sample, the sample must not teach.

    mmlu=bench/mmlu.jsonl, bench/gsm8k.parquet, own=exam.csv#task+solution

A sample goes when 13 words in a row of its question, context or answer stand in a question or answer of the benchmark,
in normal form (the overlap of Brown et al., "Language models are few-shot learners", 2020, appendix C; as there, runs
of words that more than ten entries have are the benchmark's own phrases and tell nothing). A question of fewer than 13
words has no such run: there the sample's question must be the very same. Texts to be read whole are compared too,
because a document may quote a benchmark.

The identity is the names, the columns and the content of the files, never where they lie.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.core.step import Found, fingerprint
from ilab.core.tables import FORMS, Row, read_table
from ilab.data import Rejected
from ilab.errors import InputError
from ilab.sdg.made import Made
from ilab.sdg.text import normal

BENCHMARK = "benchmarks"
RUN = 13  # words
OWN = 10  # a run that more entries have is the benchmark's own phrase
QUESTIONS = (
    *("question", "input", "prompt", "turns", "ctx", "query", "problem", "instruction", "goal", "sentence", "text"),
)
ANSWERS = (
    *("answer", "answers", "target", "solution", "output", "response", "completion", "correct_answer", "best_answer"),
    *("choices", "options", "endings"),
)
HINT = "name the columns, the question first: PATH#QUESTION+ANSWER"


@dataclass(frozen=True)
class Source:
    """A file under the name it is reported by. ``columns`` are empty where they are to be guessed."""

    name: str
    path: Path
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """``entries`` are the texts of each: the question (may be empty), then answers if there are any."""

    name: str
    entries: tuple[tuple[str, ...], ...]


def parse_sources(locator: str, folder: Path) -> list[Source]:
    """``PATH``, ``NAME=PATH`` and either with ``#COLUMN+COLUMN``, between commas; paths are relative to ``folder``.

    Raises ``InputError`` for a file that is not there and a name that is given twice.
    """
    found: list[Source] = []
    for part in filter(None, (part.strip() for part in locator.split(","))):
        where, _, columns = part.partition("#")
        name, equals, path = where.partition("=")
        if not equals:
            path = where
        file = folder / Path(path.strip()).expanduser()
        label = name.strip() if equals else file.stem
        if not re.fullmatch(r"[\w.+ -]+", label):
            raise InputError(f"{label!r} is no name for a benchmark", where="sdg_benchmarks", hint="NAME=PATH")
        if not file.is_file() or file.suffix.lower() not in FORMS:
            what = "there is no such file" if not file.is_file() else f"a benchmark is a file in {', '.join(FORMS)}"
            raise InputError(what, where=str(file), hint="sdg_benchmarks takes PATH or NAME=PATH, between commas")
        if label in {source.name for source in found}:
            raise InputError(
                f"two benchmarks are called {label!r}", where="sdg_benchmarks", hint="give them names: NAME=PATH"
            )
        found.append(Source(label, file, tuple(filter(None, (column.strip() for column in columns.split("+"))))))
    return sorted(found, key=lambda source: source.name)


def find_benchmarks(locator: str, folder: Path) -> Found:
    """Resolve a list of files. Reads all of them, so that what is wrong with one is said before anything is paid."""
    sources = parse_sources(locator, folder)
    for source in sources:
        read_benchmark(source)
    named = [{"name": one.name, "path": str(one.path.resolve()), "columns": list(one.columns)} for one in sources]
    return Found(digest_of(sources), locator, details={"files": json.dumps(named)})


def open_benchmarks(found: Found) -> list[Benchmark]:
    """The benchmarks that a resolver found. Raises ``InputError`` where a file is another one by now."""
    named = json.loads((found.details or {})["files"])
    sources = [Source(one["name"], Path(one["path"]), tuple(one["columns"])) for one in named]
    missing = [source for source in sources if not source.path.is_file()]
    if missing or digest_of(sources) != found.digest:
        where = str(missing[0].path) if missing else found.locator
        raise InputError("a benchmark changed after the plan was made", where=where, hint="run the same command again")
    return [read_benchmark(source) for source in sources]


def digest_of(sources: Sequence[Source]) -> str:
    """The identity of some benchmarks."""
    content = [[one.name, list(one.columns), hashlib.sha256(one.path.read_bytes()).hexdigest()] for one in sources]
    return f"benchmarks:{fingerprint(content)}"


def read_benchmark(source: Source) -> Benchmark:
    """Read one file. Raises ``InputError`` with the line of what is no row, or where no column holds questions."""
    rows = list(read_table(source.path))
    known = list(dict.fromkeys(name for row in rows[:100] for name in row))
    lacking = [column for column in source.columns if column not in known]
    columns = source.columns or _guessed(known)
    if not rows or not columns or lacking:
        what = "there are no rows" if not rows else f"no column {lacking[0]!r}" if lacking else "no column of questions"
        shown = ", ".join(known[:12]) or "none"
        raise InputError(f"{what} (columns: {shown})", where=str(source.path), hint=HINT)
    entries = tuple(texts for texts in (_entry(row, columns) for row in rows) if any(texts))
    if not entries:
        raise InputError(f"the column {columns[0]!r} holds no text", where=str(source.path), hint=HINT)
    return Benchmark(source.name, entries)


class Index:
    """Benchmarks by the runs of words in their entries, for :meth:`match`."""

    def __init__(self, benchmarks: Iterable[Benchmark]) -> None:
        self._short: dict[str, tuple[str, int]] = {}
        self._runs: dict[str, tuple[str, int]] = {}
        for benchmark in benchmarks:
            runs = [{run for text in texts for run in _runs(text)} for texts in benchmark.entries]
            common = Counter(run for found in runs for run in found)
            for number, (texts, found) in enumerate(zip(benchmark.entries, runs, strict=True), 1):
                question = normal(texts[0])
                if 0 < len(question.split()) < RUN:
                    self._short.setdefault(question, (benchmark.name, number))
                for run in found:
                    if common[run] <= OWN:
                        self._runs.setdefault(run, (benchmark.name, number))

    def match(self, question: str, others: Iterable[str]) -> str | None:
        """``NAME: …`` for a question, or one of the ``others`` (context, answer), that a benchmark has."""
        entry = self._short.get(normal(question))
        if entry is not None:
            return f"benchmark {entry[0]}: the same question as entry {entry[1]}"
        for text in (question, *others):
            for run in _runs(text):
                if run in self._runs:
                    name, number = self._runs[run]
                    return f"benchmark {name}: {RUN} words in a row of entry {number}: {run}"
        return None


def drop_benchmarks(made: Sequence[Made], benchmarks: Sequence[Benchmark]) -> tuple[list[Made], list[Rejected]]:
    """``made`` without what shares text with one of ``benchmarks``."""
    index = Index(benchmarks)
    kept, dropped = [], []
    for one in made:
        # The heading above a text that is read whole is no question.
        question = one.question if one.sample.train_on == "assistant" else ""
        reason = index.match(question, (one.context or "", one.answer))
        if reason is None:
            kept.append(one)
        else:
            dropped.append(one.refuse(BENCHMARK, reason))
    return kept, dropped


def _runs(text: str) -> Iterator[str]:
    found = normal(text).split()
    return (" ".join(found[at : at + RUN]) for at in range(len(found) - RUN + 1))


def _guessed(known: Sequence[str]) -> tuple[str, ...]:
    """The column of the question, and those of answers, by their usual names."""
    names = {name.casefold(): name for name in reversed(known)}
    question = next((names[name] for name in QUESTIONS if name in names), None)
    return (question, *(names[name] for name in ANSWERS if name in names)) if question else ()


def _entry(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    """The question (of several turns the first), empty where there is none, and the answers."""
    asked = _texts(row.get(columns[0]))[:1] or [""]
    return (*asked, *(text for column in columns[1:] for text in _texts(row.get(column))))


def _texts(value: Any) -> list[str]:
    """The texts in a cell: itself, those of a list, those under ``text`` or ``content``."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, Mapping):
        return _texts(value.get("text", value.get("content", list(value.values()))))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [text for one in value for text in _texts(one)]
    return []

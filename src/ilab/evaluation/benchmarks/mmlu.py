"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): general knowledge, in letters, five shots from the dev file.

The questions are read from a folder of the user's, never shipped:

    DIR/test/*_test.csv, DIR/dev/*_dev.csv         the authors' archive: question, A, B, C, D, letter, no header
    DIR/<subject>/test-*.parquet, dev-*.parquet    ``cais/mmlu`` as the hub has it (also found in its local cache)
    DIR/test.jsonl, DIR/dev.jsonl                  rows of question, choices, answer, subject (also .csv, .parquet)

Prompts and order of options are the ones that published scores are made with: options are never permuted, the dev
questions are shown in the file's order. The score is the plain mean of the subjects, as InstructLab's; the mean over
all questions (what lm-evaluation-harness calls ``mmlu``) stands beside it as ``micro``.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.core.step import Site
from ilab.core.tables import FORMS, read_table
from ilab.data import digest_text, short
from ilab.errors import InputError
from ilab.evaluation.benchmarks.choices import Choice, Form, Scorer, ask_choices, limited, summarise
from ilab.evaluation.benchmarks.result import BenchmarkResult
from ilab.evaluation.mcq_text import Unread, find_gold
from ilab.evaluation.prompts import LETTERS, MMLU

BENCHMARK = "mmlu"
HUB_NAME = "cais/mmlu"
HOW = "letters, {} shots from the dev file; plain mean of the subjects"
LAYOUTS = "DIR with test/*_test.csv and dev/*_dev.csv, with SUBJECT/test-*.parquet, or with test.jsonl and dev.jsonl"


@dataclass(frozen=True)
class TestSet:
    """Questions to ask, and those for shots by group, which are never asked."""

    __test__ = False  # no class of pytest's

    questions: tuple[Choice, ...]
    shots: Mapping[str, tuple[Choice, ...]]


def find_mmlu(locator: str, folder: Path) -> Path:
    """The folder of the test set: a path relative to ``folder``, or ``cais/mmlu`` in the hub's cache on this machine.

    Raises ``InputError`` where it is neither. Nothing is fetched.
    """
    path = folder / Path(locator).expanduser()
    if path.exists():
        return path
    if locator != HUB_NAME:
        raise InputError("there is no such file or folder", where=str(path), hint=f"--test-set takes {LAYOUTS}")
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / "datasets--cais--mmlu"
    named = hub / "refs" / "main"
    snapshot = hub / "snapshots" / named.read_text(encoding="utf-8").strip() if named.is_file() else None
    if snapshot is None or not snapshot.is_dir():
        raise InputError(
            f"the test set {HUB_NAME} is not on this machine",
            where=str(hub),
            hint=f"hf download {HUB_NAME} --repo-type dataset; or give a folder: --test-set DIR",
        )
    return snapshot


def read_mmlu(path: Path) -> TestSet:
    """The questions in ``path``. Raises ``InputError`` with file and line for what is no question."""
    tests, shots = _files(path)
    questions = tuple(one for file, subject in tests for one in _read(file, subject))
    if not questions:
        raise InputError("there are no questions here", where=str(path), hint=f"give {LAYOUTS}")
    pool: dict[str, list[Choice]] = {}
    for file, subject in shots:
        for one in _read(file, subject):
            pool.setdefault(one.group, []).append(one)
    return TestSet(_told_apart(questions), {group: tuple(found) for group, found in sorted(pool.items())})


def run_mmlu(
    test: TestSet, model: str, scorer: Scorer, form: Form, site: Site, limit: int | None = None, seed: int = 0
) -> BenchmarkResult:
    """Ask ``test``; ``limit`` questions of each subject at most, drawn by ``seed``.

    Raises ``InputError`` where shots are wanted and there is no dev file.
    """
    asked = limited(test.questions, limit, seed)
    groups = sorted({one.group for one in asked})
    lacking = [group for group in groups if len(test.shots.get(group, ())) < form.shots]
    if lacking:
        known = len(test.shots.get(lacking[0], ()))
        raise InputError(
            f"{lacking[0]} has {known} dev questions, and {form.shots} shots are wanted",
            hint=f"add its dev file, or use --few-shots {known}",
        )
    descriptions = {group: MMLU.format(group.replace("_", " ")) for group in groups}
    rows = ask_choices(scorer, asked, test.shots, form, descriptions, site)
    notes = () if len(asked) == len(test.questions) else (f"{len(asked)} of {len(test.questions)} questions",)
    return summarise(BENCHMARK, model, rows, HOW.format(form.shots), notes)


def choice_of(row: Mapping[str, Any], group: str, where: str) -> Choice:
    """A row of question, choices (or options, or columns A, B …) and answer (position, letter or text) as a question.

    ``subject`` names the group where the row has one. Raises ``InputError`` for anything else.
    """
    listed = row.get("choices", row.get("options"))
    if listed is None:
        listed = [row[letter] for letter in LETTERS if row.get(letter) not in (None, "")]
    elif isinstance(listed, str):
        raise InputError("choices is a text, not a list", where=where)
    options, question = tuple(str(option) for option in listed), str(row.get("question") or "")
    if not question.strip() or len(options) < 2 or len(options) > len(LETTERS):
        raise InputError("a row has question, choices (two or more) and answer", where=where)
    gold = _gold(options, row.get("answer"))
    if isinstance(gold, str):
        raise InputError(gold, where=where, hint="answer: the position from 0, the letter, or the option's text")
    name = str(row.get("subject") or group)
    identity = f"{name}/{short(digest_text(chr(0).join((question, *options))))}"
    return Choice(id=identity, group=name, question=question, options=options, gold=gold)


def _gold(options: Sequence[str], answer: Any) -> int | str:
    """The position of the right option, or what is wrong with ``answer``."""
    if isinstance(answer, bool) or answer is None:
        return "a row has no answer"
    if isinstance(answer, int) or (isinstance(answer, str) and answer.strip().isdecimal() and answer not in options):
        place = int(answer)
        return place if 0 <= place < len(options) else f"the answer {place} is no position among {len(options)} options"
    found = find_gold(tuple(options), str(answer))
    return found.reason if isinstance(found, Unread) else found


def _files(path: Path) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """(file, subject) of the questions and of the shots, in a fixed order."""
    if path.is_file():
        beside = path.with_name(f"dev{path.suffix}")
        return [(path, path.stem)], [(beside, path.stem)] if beside.is_file() and beside != path else []
    for root in (path, path / "data"):
        found = {
            split: [
                (file, file.stem.removesuffix(f"_{split}")) for file in sorted((root / split).glob(f"*_{split}.csv"))
            ]
            for split in ("test", "dev")
        }
        if found["test"]:
            return found["test"], found["dev"]
    parts = {
        split: [
            (file, file.parent.name)
            for file in sorted(path.glob(f"*/{split}-*.parquet"))
            if file.parent.name not in ("all", "auxiliary_train")  # the same questions once more, and no test
        ]
        for split in ("test", "dev")
    }
    if parts["test"]:
        return parts["test"], parts["dev"]
    plain = {
        split: [(file, split) for file in sorted(path.glob(f"{split}.*")) if file.suffix in FORMS]
        for split in ("test", "dev")
    }
    return plain["test"], plain["dev"]


def _read(file: Path, subject: str) -> Iterator[Choice]:
    if file.suffix == ".csv" and file.stem.endswith(("_test", "_dev")):
        yield from _archive(file, subject)
        return
    for number, row in enumerate(read_table(file), 1):
        yield choice_of(row, subject, f"{file}:{number}")


def _archive(file: Path, subject: str) -> Iterator[Choice]:
    """The authors' files: six columns without a header."""
    try:
        reader = csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline=""))
        for cells in reader:
            where = f"{file}:{reader.line_num}"
            if len(cells) != 6 or cells[5].strip() not in LETTERS[:4]:
                raise InputError("a line has the question, four options and the letter of the right one", where=where)
            row = {"question": cells[0], "choices": cells[1:5], "answer": LETTERS.index(cells[5].strip())}
            yield choice_of(row, subject, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", where=str(file)) from error


def _told_apart(questions: Sequence[Choice]) -> tuple[Choice, ...]:
    """The same questions with ids of their own: a test set may ask one thing twice."""
    seen: dict[str, int] = {}
    told = []
    for one in questions:
        count = seen[one.id] = seen.get(one.id, 0) + 1
        told.append(one if count == 1 else one.model_copy(update={"id": f"{one.id}-{count}"}))
    return tuple(told)

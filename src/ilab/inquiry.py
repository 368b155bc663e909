"""Why does the model say this? From a question to the samples, passages and leaf behind its answer.

    question ──▶ item? ──▶ what base, phase 1, phase 2 answered, and the diagnosis
        └─────▶ samples ──▶ passage, marked ──▶ leaf: file:line, commit, author

Everything is read from what the project's last build left in the store. The search is by shared words over *all*
samples and passages, so nothing found means that nothing there is about it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ilab.artifacts import Checkpoint, Documents, Items, Report, Samples, Taxonomy
from ilab.core.files import read_json
from ilab.core.git import last_change
from ilab.core.store import RecordFile, Store
from ilab.data import Chunk, Item, Leaf, Message, Sample, Score, TrainingRow
from ilab.errors import InputError
from ilab.evaluation.diagnose import Tries, diagnose_one, is_wrong
from ilab.evaluation.diagnose_index import WordIndex, alike, stems
from ilab.evaluation.diagnose_taught import SAME, Taught, agrees, asks_same
from ilab.provenance import marked

ABOUT = 0.5  # share of a question's weight that a sample or passage needs to be about it
SAMPLES, PASSAGES, LEAVES = 5, 3, 5  # that are shown


@dataclass(frozen=True)
class Results:
    """What the last build that generated anything left, by the name of each step."""

    store: Store
    records: Mapping[str, RecordFile]

    def of(self, type_: str) -> RecordFile | None:
        """The result of the (last) step of this type."""
        found = [record for record in self.records.values() if record.type == type_]
        return found[-1] if found else None

    @cached_property
    def taught(self) -> Taught:
        samples = Samples(self._path("generate") or Path())
        documents, taxonomy = self._path("documents"), self._path("taxonomy")
        return Taught(
            samples.samples(),
            samples.rejected(),
            Documents(documents).chunks() if documents else (),
            Taxonomy(taxonomy).leaves() if taxonomy else (),
        )

    @cached_property
    def items(self) -> list[Item]:
        path = self._path("items")
        return Items(path).items() if path else []

    @cached_property
    def comparison(self) -> dict[str, Any]:
        """The final evaluation; empty before there was one."""
        path = self._path("compare")
        return Report(path).report() if path else {}

    @cached_property
    def scores(self) -> dict[str, list[Score]]:
        """By model, of the final evaluation."""
        path = self._path("compare")
        found: dict[str, list[Score]] = {}
        for score in Report(path).scores() if path else ():
            found.setdefault(score.model, []).append(score)
        return found

    @property
    def base(self) -> Path | None:
        """The folder of the base model."""
        path = self._path("base")
        return Checkpoint(path).model if path else None

    def _path(self, type_: str) -> Path | None:
        record = self.of(type_)
        return self.store.contents(record) if record else None


def last_results(store: Store) -> Results:
    """The newest build in ``store`` that has samples. Raises InputError where there is none."""
    for path in sorted((store.root / "runs").glob("*/plan.json"), reverse=True):
        try:
            steps = read_json(path)["plan"]["steps"]
        except (OSError, ValueError, KeyError, TypeError):  # killed while it was written
            continue
        found = {step["name"]: store.record(step["type"], step["key"]) for step in steps}
        known = {name: record for name, record in found.items() if record is not None}
        if any(record.type == "generate" for record in known.values()):
            return Results(store, known)
    raise InputError("nothing was built here yet", where=str(store.root), hint="build first: ilab run")


def inquire(results: Results, question: str, base: Path, said: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What stands behind the answer to ``question``, as JSON.

    ``base`` is the project's folder; ``said`` what models answered just now, by name (the last is explained). Keys:
    ``question``, ``item``, ``answers`` ({model: {answer, right}}), ``diagnosis``, ``samples``, ``passages``,
    ``leaf`` and ``nearest`` (leaves; only where nothing is about it).
    """
    taught = results.taught
    item = find_item(results, question)
    answers = _answers(results, item, said or {})
    near = _samples(taught, question, item)
    passages = _passages(taught, question, item, near)
    leaf = item.leaf if item else near[0].leaf if near else passages[0].leaf if passages else ""
    found = bool(near or passages)
    last = list(answers.values())[-1]["answer"] if answers else None
    return {
        "question": question,
        "item": item.model_dump(mode="json") if item else None,
        "answers": answers,
        "diagnosis": _diagnosis(results, item, question, near, said or {}),
        "samples": [_sample_facts(one, taught, item, last) for one in near],
        "passages": [_passage_facts(one, question, item) for one in passages],
        "leaf": leaf_facts(results, leaf, question, base) if leaf else None,
        "nearest": [] if found else nearest_leaves(taught.leaves, question),
    }


def find_item(results: Results, question: str) -> Item | None:
    """The held-out item that asks ``question``, test items first, or one that asks nearly the same."""
    ordered = sorted(results.items, key=lambda item: (item.split != "test", item.id))
    texts = [" ".join(filter(None, (item.question, item.context))) for item in ordered]
    equal = [item for item, text in zip(ordered, texts, strict=True) if alike(text) == alike(question)]
    if equal:
        return equal[0]
    index = WordIndex(texts)
    near = index.nearest(question, 1)
    close = near and near[0].share >= SAME and asks_same(index, question, texts[near[0].number])
    return ordered[near[0].number] if close else None


def nearest_leaves(leaves: Sequence[Leaf], question: str) -> list[str]:
    """The leaves whose own words are nearest to ``question``; all of a small taxonomy where none is near."""
    texts = [
        " ".join((re.sub(r"\W|_", " ", leaf.path), leaf.domain, leaf.outline, leaf.task, *_written(leaf)))
        for leaf in leaves
    ]
    near = [leaves[hit.number].path for hit in WordIndex(texts).nearest(question, LEAVES)]
    return near or sorted(leaf.path for leaf in leaves)[:LEAVES]


def leaf_facts(results: Results, leaf: str, question: str, base: Path) -> dict[str, Any]:
    """The leaf, the ``file:line`` in it that is nearest to the question, and who changed its file last."""
    place = results.taught.place(leaf, question)
    record = results.of("taxonomy")
    found = next(iter(record.found.values()), {}) if record else {}
    file = _leaf_file(base, found.get("locator", ""), place)
    change = last_change(file) if file else None
    return {
        "path": leaf,
        "place": place,
        "file": str(file) if file else None,
        "taxonomy": found.get("locator", ""),
        "commit": change.commit if change else found.get("revision") or None,
        "author": change.author if change else None,
        "date": change.date if change else None,
    }


def questions_in(path: Path) -> list[TrainingRow]:
    """The questions of a file: a line each, or JSONL or CSV with ``question`` and perhaps ``answer``.

    Raises InputError with the line for whatever cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read questions: {error}", where=str(path)) from error
    rows = [asked(question, answer) for question, answer in _read(text, path)]
    if not rows:
        raise InputError("there is no question in this file", where=str(path), hint="write one question on each line")
    return rows


def asked(question: str, answer: str = "") -> TrainingRow:
    """A question with its expected answer, as models are asked it."""
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return TrainingRow(id=question, leaf="", source="asked", sample="", messages=messages)


def _read(text: str, path: Path) -> Iterator[tuple[str, str]]:
    lines = text.splitlines()
    if path.suffix == ".csv":
        rows = csv.DictReader(lines)
        if "question" not in (rows.fieldnames or ()):
            raise InputError("there is no column `question`", where=f"{path}:1")
        yield from ((row["question"].strip(), (row.get("answer") or "").strip()) for row in rows if row["question"])
        return
    for number, line in enumerate(lines, 1):
        if path.suffix == ".jsonl" and line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"this line is no JSON: {error}", where=f"{path}:{number}") from error
            if not isinstance(row, dict) or not isinstance(row.get("question"), str) or not row["question"].strip():
                raise InputError("this line has no text under `question`", where=f"{path}:{number}")
            yield row["question"].strip(), str(row.get("answer") or "")
        elif line.strip():
            yield line.strip(), ""


def _answers(results: Results, item: Item | None, said: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """By model: what the evaluation saw, then what was said just now."""
    found: dict[str, dict[str, Any]] = {}
    if item:
        for model, scores in results.scores.items():
            score = next((one for one in scores if one.item == item.id), None)
            if score is not None:
                right = None if score.value is None else not is_wrong(score)
                found[model] = {"answer": score.answer, "right": right}
    for model, answer in said.items():
        found[model] = {"answer": answer, "right": agrees(answer, item.gold) if item else None}
    return found


def _samples(taught: Taught, question: str, item: Item | None) -> list[Sample]:
    """The samples about the question: equal ones first, passages that were only read last."""
    wanted = stems(question)
    answer = item.gold if item else ""
    about = [
        one
        for one in taught.near(question, answer)
        if taught.index.share(wanted, stems(" ".join(message.content for message in one.messages))) >= ABOUT
    ]
    return sorted(about, key=lambda one: (one.train_on == "all", not asks_same(taught.index, question, one.question)))[
        :SAMPLES
    ]


def _passages(taught: Taught, question: str, item: Item | None, near: Sequence[Sample]) -> list[Chunk]:
    """The passages that the samples come from, and those that are about the question themselves."""
    behind = [chunk for sample in near if (chunk := taught.passage(sample))]
    own = taught.chunk_for(question, item.gold, item.leaf) if item else None
    hits = [hit for hit in taught.passages.nearest(question, PASSAGES) if hit.share >= ABOUT]
    found = [*([own] if own else []), *behind, *(taught.chunks[hit.number] for hit in hits)]
    return list({(chunk.leaf, chunk.id): chunk for chunk in found}.values())[:PASSAGES]


def _diagnosis(
    results: Results, item: Item | None, question: str, near: Sequence[Sample], said: Mapping[str, str]
) -> dict[str, Any] | None:
    """Why the item is answered wrongly; of a question that is no item, held against what the nearest sample answers."""
    same = next((one for one in near if asks_same(results.taught.index, question, one.question)), None)
    wanted = item or (_as_item(question, same) if same else None)
    if wanted is None or not (said or results.comparison):
        return None
    tries = Tries({}, {}, {})
    if results.comparison:
        tries = Tries.of(results.scores, results.comparison["reference"], results.comparison["candidate"])
    if said:
        model, answer = list(said.items())[-1]
        value = float(agrees(answer, wanted.gold))
        score = Score(
            item=wanted.id, leaf=wanted.leaf, model=model, kind="free", cluster="", value=value, answer=answer
        )
        tries = replace(tries, candidate={wanted.id: score})
    return diagnose_one(wanted, tries, results.taught).facts() if is_wrong(tries.candidate.get(wanted.id)) else None


def _as_item(question: str, sample: Sample) -> Item:
    return Item(
        id=sample.id, leaf=sample.leaf, split="dev", kind="free", question=question, gold=sample.answer, cluster=""
    )


def _sample_facts(sample: Sample, taught: Taught, item: Item | None, said: str | None) -> dict[str, Any]:
    says = []
    if item and agrees(sample.answer, item.gold):
        says.append("the right answer")
    if said and agrees(sample.answer, said):
        says.append("what the model says")
    return {
        "id": sample.id,
        "leaf": sample.leaf,
        "question": sample.question,
        "answer": sample.answer,
        "block": sample.origin.block,
        "teacher": sample.origin.teacher,
        "by": "a person" if taught.is_seed(sample) else sample.origin.teacher or "rule",
        "says": says,
        "verdicts": [verdict.model_dump(mode="json") for verdict in sample.origin.verdicts],
    }


def _passage_facts(chunk: Chunk, question: str, item: Item | None) -> dict[str, Any]:
    """A passage with the sentence marked that shares most with the question and the right answer."""
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", chunk.text) if part.strip()]
    hits = WordIndex(sentences).nearest(f"{question} {item.gold if item else ''}", 1)
    return {
        "chunk": chunk.id,
        "leaf": chunk.leaf,
        "source": chunk.source,
        "page": chunk.page,
        "heading": list(chunk.heading),
        "span": list(chunk.span),
        "passage": marked(chunk.text, sentences[hits[0].number]) if hits else chunk.text,
    }


def _leaf_file(base: Path, locator: str, place: str | None) -> Path | None:
    """The author's file on this machine, where the taxonomy is a folder here that still has it."""
    root = (base / Path(locator).expanduser()).resolve() if locator else base
    name = (place or "").rsplit(":", 2)[0]
    file = (root / name).resolve()
    return file if name and file.is_file() and file.is_relative_to(root) else None


def _written(leaf: Leaf) -> Iterator[str]:
    for seed in leaf.seeds:
        for pair in seed.pairs:
            yield f"{pair.question} {pair.answer}"

"""Generated data as files under the names that InstructLab's tools look for.

    OUTPUT/2026-11-21_140709/                 one folder per export, made whole or not at all
      preprocessed_SUF/LEAF.jsonl             what the flow started from: passages beside seed examples
      generated_SUF/LEAF.jsonl                the same columns with question and response
      node_datasets_SUF/LEAF.jsonl            skills as messages, with id and unmask
      node_datasets_SUF/LEAF_p07.jsonl        knowledge for phase 07; LEAF_p10.jsonl for phase 10 (``sdg/phases``)
      node_datasets_SUF/LEAF_task.yaml        a task of lm-evaluation-harness over mmlubench_LEAF.jsonl: the held-out
                                              questions of a knowledge leaf that have options
      knowledge_recipe_SUF.yaml               what phase 07 mixes, by paths relative to the recipe
      knowledge_train_msgs_SUF.jsonl          phase 07
      skills_recipe_SUF.yaml                  the same for phase 10
      skills_train_msgs_SUF.jsonl             phase 10: skills and replayed knowledge
      train_SUF.jsonl  test_SUF.jsonl         system, user, assistant; test is the seed examples
      messages_SUF.jsonl                      messages and metadata
      export.json                             which run this is, for ``ilab data list``

    OUTPUT/generated_NAME_SUF.json  train_NAME_SUF.jsonl  test_NAME_SUF.jsonl  discarded_NAME_SUF.log     (legacy)

The records have upstream's fields exactly. Where upstream was wrong it is put right: a context stands once in a user
message, a seed example once in the test file, ids are those of ``ilab data why`` and not random, all rows of a leaf
are mixed, once each, and no file holds an absolute path. Passages that are trained on whole are no questions, so they
are in none of these files but the first.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ilab.core.files import fsync_tree, write_json, write_text
from ilab.data import Chunk, Kind, Leaf, Sample, SeedExample, digest_text, short
from ilab.errors import InputError, SetupError
from ilab.models.chat import prompt_text
from ilab.provenance import Run, answer_of, seed_labels
from ilab.sdg.phases import knowledge_rows, replayed_rows, under
from ilab.sdg.raft import Passages

# The system message of the old trainers, without the sentence that names a maker.
SYSTEM = (
    "You are a cautious assistant. You carefully follow instructions. You are helpful and harmless and you follow "
    "ethical guidelines and promote positive behavior."
)
NODE_TYPES: dict[Kind, str] = {"knowledge": "knowledge", "grounded": "grounded_skill", "freeform": "freeform_skill"}
PAIRS = 3  # question-answer pairs of a seed example that upstream's prompts show
MANIFEST = "export.json"
Rows = list[dict[str, Any]]
T = TypeVar("T", Chunk, Sample)


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, and the files by their part (``messages``, ``train``, …), relative to it."""

    folder: Path
    files: Mapping[str, str]
    samples: int


def export_run(run: Run, samples: Sequence[Sample], output: Path, system: str = SYSTEM) -> Exported:
    """Write ``samples`` of ``run`` to a new folder of ``output``. Raises InputError where the run's inputs are gone."""
    leaves = leaves_of(run)
    asked = [sample for sample in samples if sample.train_on == "assistant"]
    pairs = [sample for sample in asked if is_pair(sample)]
    names = leaf_names(leaves)
    folder, suffix = _reserved(output)
    files = {part: f"{part}_{suffix}.jsonl" for part in ("messages", "train", "test")}
    with _whole(folder) as new:
        phases: dict[str, Phase] = {name: Phase([], []) for name in ("knowledge", "skills")}
        passages = Passages(list(run.chunks.values()))
        seed = int(run.record.fields.get("seed", 42))
        chunks_of, samples_of = by_leaf(run.chunks.values()), by_leaf(pairs)
        for path, leaf in sorted(leaves.items()):
            chunks, mine = chunks_of.get(path, []), samples_of.get(path, [])
            _write(new / f"preprocessed_{suffix}" / f"{names[path]}.jsonl", preprocessed(leaf, chunks))
            generated = generated_rows(leaf, chunks, mine)
            _write(new / f"generated_{suffix}" / f"{names[path]}.jsonl", generated)
            if leaf.kind == "knowledge":
                taught = knowledge_rows(leaf, mine, passages)
                replayed = replayed_rows(leaf, mine, passages, seed)
                nodes = [("knowledge", f"{names[path]}_p07", taught), ("skills", f"{names[path]}_p10", replayed)]
            else:
                nodes = [("skills", names[path], node_rows(mine, generated, system))]
            for phase, name, rows in nodes if mine else ():
                node = f"node_datasets_{suffix}/{name}.jsonl"
                _write(new / node, rows)
                phases[phase].nodes.append(node)
                phases[phase].rows.extend(message_record(under(row, system)) for row in rows)
        _write_questions(new / f"node_datasets_{suffix}", run, leaves, names)
        files |= _write_phases(new, suffix, phases, system)
        _write(new / files["messages"], [messages_row(sample, system) for sample in asked])
        _write(new / files["train"], [train_row(sample, system) for sample in pairs])
        _write(new / files["test"], [row for leaf in leaves.values() for row in seed_rows(leaf, system)])
        facts = {name: value for name, value in run.facts().items() if name not in ("path", "taxonomy")}
        about = {**facts, "flow": run.card["flow"], "samples": len(asked), "files": files}
        write_json(new / MANIFEST, about)
    return Exported(folder, files, len(asked))


@dataclass(frozen=True)
class Phase:
    """What one training phase mixes: the files of its leaves, and their rows as they are trained on."""

    nodes: list[str]
    rows: Rows


def _write_questions(folder: Path, run: Run, leaves: Mapping[str, Leaf], names: Mapping[str, str]) -> None:
    """Write what was held out of knowledge leaves as tasks, to be asked after training: no recipe names these files."""
    from ilab.evaluation.benchmarks.export_tasks import export_branch

    taught = {path: names[path] for path, leaf in leaves.items() if leaf.kind == "knowledge"}
    items = [item for item in run.items if item.leaf in taught]
    domains = {path: leaves[path].domain for path in taught}
    export_branch(items, folder, taught, domains, int(run.record.fields.get("seed", 42)))


def _write_phases(folder: Path, suffix: str, phases: Mapping[str, Phase], system: str) -> dict[str, str]:
    """Write recipe and mix of every phase that has rows; the files by their part."""
    files = {}
    for name, phase in phases.items():
        if not phase.nodes:
            continue
        files[f"{name}_recipe"] = f"{name}_recipe_{suffix}.yaml"
        files[f"{name}_train_msgs"] = f"{name}_train_msgs_{suffix}.jsonl"
        datasets = [{"path": node, "sampling_size": 1.0} for node in phase.nodes]
        content = {"datasets": datasets, "metadata": {"sys_prompt": system}}
        write_text(folder / files[f"{name}_recipe"], yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        _write(folder / files[f"{name}_train_msgs"], phase.rows)
    return files


def export_legacy(run: Run, samples: Sequence[Sample], output: Path, system: str = SYSTEM) -> Exported:
    """Write ``samples`` and the refused rows of ``run`` into ``output`` itself, under the names of ``lab generate``."""
    leaves = leaves_of(run)
    pairs = [sample for sample in samples if sample.train_on == "assistant" and is_pair(sample)]
    name = _file_name(Path(run.teacher or run.flow).stem)
    output.mkdir(parents=True, exist_ok=True)
    suffix = next(one for one in _suffixes() if not any(output.glob(f"*_{name}_{one}.*")))
    files = {
        "generated": f"generated_{name}_{suffix}.json",
        "discarded": f"discarded_{name}_{suffix}.log",
        "test": f"test_{name}_{suffix}.jsonl",
        "train": f"train_{name}_{suffix}.jsonl",  # last: whoever looks for it finds the others
    }
    instructions = [instruction_row(leaves[sample.leaf], sample) for sample in pairs]
    discarded = [f"{row.id}: {row.reason} | {' '.join(answer_of(row).split())}" for row in run.rejected]
    write_text(output / files["generated"], json.dumps(instructions, indent=4, ensure_ascii=False) + "\n")
    write_text(output / files["discarded"], "".join(f"{' '.join(line.split())}\n" for line in discarded))
    _write(output / files["test"], [row for leaf in leaves.values() for row in seed_rows(leaf, system)])
    _write(output / files["train"], [train_row(sample, system) for sample in pairs])
    return Exported(output, files, len(pairs))


# -- records ---------------------------------------------------------------------------------------------------------


def preprocessed(leaf: Leaf, chunks: Sequence[Chunk]) -> Rows:
    """What upstream's pipelines start from: knowledge a row per passage and seed example, skills per seed example."""
    if leaf.kind == "knowledge":
        return [_columns(leaf, chunk, seed) for chunk in chunks for seed in leaf.seeds]
    return [_columns(leaf, None, seed) for seed in leaf.seeds]


def generated_rows(leaf: Leaf, chunks: Sequence[Chunk], samples: Sequence[Sample]) -> Rows:
    """``samples`` of one leaf with the columns they were made from; the columns are the same in all rows.

    A rule that uses all seed examples at once leaves those of the single example empty.
    """
    labels = seed_labels(leaf, chunks)
    by_id = {chunk.id: chunk for chunk in chunks}
    rows = []
    for sample in samples:
        steps = sample.id.removeprefix(leaf.path).split("/")
        seed = next((labels[step] for step in steps if step in labels), None)
        row = _columns(leaf, by_id.get(sample.origin.chunk or ""), seed)
        question, context = question_and_context(leaf, sample)
        if leaf.kind == "grounded":
            row["context"] = context
        rows.append({**row, "question": question, "response": sample.answer})
    return rows


def node_rows(samples: Sequence[Sample], generated: Rows, system: str) -> Rows:
    """The generated rows of a skill as training rows. ``id`` leads back to the sample (``ilab data why ID``)."""
    return [
        {
            **row,
            "id": sample.id,
            "messages": [_message("system", _system(sample, system)), *_messages(sample)],
            "unmask": False,
        }
        for sample, row in zip(samples, generated, strict=True)
    ]


def message_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of a mixed dataset: exactly ``messages``, ``metadata`` (JSON text), ``id`` and ``unmask``."""
    fields = ("messages", "metadata", "id", "unmask")
    more = {name: value for name, value in row.items() if name not in fields}
    return {
        "messages": row["messages"],
        "metadata": row.get("metadata") or json.dumps(more, ensure_ascii=False, sort_keys=True),
        "id": row["id"],
        "unmask": row["unmask"],
    }


def messages_row(sample: Sample, system: str) -> dict[str, Any]:
    """The old messages format: the system message is in the metadata."""
    metadata = {"system": _system(sample, system)}
    return {"messages": _messages(sample), "metadata": json.dumps(metadata, ensure_ascii=False)}


def train_row(sample: Sample, system: str) -> dict[str, str]:
    """One row of the old trainers. The user's text holds the context once."""
    return {"system": _system(sample, system), "user": sample.question, "assistant": sample.answer}


def seed_rows(leaf: Leaf, system: str) -> list[dict[str, str]]:
    """The seed examples of a leaf, each once, as rows that the old trainers compare answers with."""
    return [
        {"user": prompt_text(pair.question, seed.context), "assistant": pair.answer, "system": system}
        for seed in leaf.seeds
        for pair in seed.pairs
    ]


def instruction_row(leaf: Leaf, sample: Sample) -> dict[str, str]:
    """One entry of ``generated_*.json``."""
    question, context = question_and_context(leaf, sample)
    return {"instruction": question, "input": context, "output": sample.answer}


def question_and_context(leaf: Leaf, sample: Sample) -> tuple[str, str]:
    """A sample's question apart from its context.

    A message is the question, a line end and the context. A sample that was stored before contexts were is taken
    apart at a seed example's context, else at its first line end.
    """
    if sample.context:
        return sample.question.removesuffix(f"\n{sample.context}"), sample.context
    if leaf.kind != "grounded":
        return sample.question, ""
    for seed in leaf.seeds:
        if seed.context and sample.question.endswith(f"\n{seed.context}"):
            return sample.question.removesuffix(f"\n{seed.context}"), seed.context
    question, _, context = sample.question.partition("\n")
    return question, context


def is_pair(sample: Sample) -> bool:
    """Whether a sample is one question and one answer, beside a system message."""
    return [message.role for message in sample.messages if message.role != "system"] == ["user", "assistant"]


def leaf_names(paths: Iterable[str]) -> dict[str, str]:
    """What each leaf's files are called: its path joined by underlines, with a hash where two would be the same."""
    joined = {path: _file_name(path.replace("/", "_")) for path in paths}
    taken = list(joined.values())
    return {
        path: name if taken.count(name) == 1 else f"{name}_{short(digest_text(path))}" for path, name in joined.items()
    }


def by_leaf(found: Iterable[T]) -> dict[str, list[T]]:
    """``found`` sorted by leaf, in the order given."""
    leaves: dict[str, list[T]] = {}
    for one in found:
        leaves.setdefault(one.leaf, []).append(one)
    return leaves


def _columns(leaf: Leaf, chunk: Chunk | None, seed: SeedExample | None) -> dict[str, Any]:
    node = {"leaf_node_type": NODE_TYPES[leaf.kind], "leaf_node_path": leaf.path.replace("/", "_")}
    if leaf.kind != "knowledge":
        pair = seed.pairs[0] if seed else None
        context = {"seed_context": (seed.context if seed else None) or ""} if leaf.kind == "grounded" else {}
        return {
            "task_description": leaf.task,
            **context,
            "seed_question": pair.question if pair else "",
            "seed_response": pair.answer if pair else "",
            **node,
        }
    columns = {
        "document": chunk.text if chunk else "",
        "icl_document": (seed.context if seed else None) or "",
        "document_outline": leaf.outline,
        "domain": leaf.domain,
    }
    pairs = seed.pairs[:PAIRS] if seed else ()
    for number in range(PAIRS):
        columns[f"icl_query_{number + 1}"] = pairs[number].question if number < len(pairs) else ""
        columns[f"icl_response_{number + 1}"] = pairs[number].answer if number < len(pairs) else ""
    return {**columns, **node}


def _system(sample: Sample, otherwise: str) -> str:
    """A sample's own system message, which a flow may have given it."""
    return next((message.content for message in sample.messages if message.role == "system"), otherwise)


def _messages(sample: Sample) -> list[dict[str, str]]:
    return [_message(message.role, message.content) for message in sample.messages if message.role != "system"]


def _message(role: str, content: str) -> dict[str, str]:
    return {"content": content, "role": role}


# -- files -----------------------------------------------------------------------------------------------------------


def leaves_of(run: Run) -> dict[str, Leaf]:
    """The leaves of a run, so that nothing is written where they are gone."""
    gone = run.card["leaves"].keys() - run.leaves.keys()
    if gone:
        raise InputError(
            "the store no longer has the taxonomy that this was generated from",
            where=str(run.path),
            hint="run `ilab data generate` again: answers are kept, so it costs nothing",
        )
    return run.leaves


def _suffixes() -> Iterator[str]:
    """The local time as upstream's file names have it, then numbered for exports within one second."""
    now = time.strftime("%Y-%m-%dT%H_%M_%S")
    yield now
    for number in range(2, 1000):
        yield f"{now}_{number}"
    raise SetupError("too many exports within a second")


def _reserved(output: Path) -> tuple[Path, str]:
    """A folder below ``output`` that nobody else is going to make, and the suffix of its files.

    Whoever makes the hidden folder has the name: other processes export within the same second.
    """
    output.mkdir(parents=True, exist_ok=True)
    for suffix in _suffixes():
        date, _, clock = suffix.partition("T")
        hours, minutes, rest = clock.split("_", 2)
        folder = output / f"{date}_{hours}{minutes}{rest}"
        try:
            _unfinished(folder).mkdir()
        except FileExistsError:
            continue
        if not folder.exists():  # looked at now, as it was perhaps just finished by another
            return folder, suffix
        _unfinished(folder).rmdir()
    raise SetupError("too many exports within a second", where=str(output))


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}")


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """What was reserved, to write into: renamed to ``folder`` once everything in it is on the disk, else removed."""
    new = _unfinished(folder)
    try:
        yield new
        fsync_tree(new)
        os.rename(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _file_name(text: str) -> str:
    """``text`` as a part of a file name: nothing of it leads to another folder."""
    name = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in text).lstrip(".")
    return name[:150] or "data"

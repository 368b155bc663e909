"""Flows in instructlab-sdg's form: translated into our blocks when they are loaded, so that there is one engine.

    version: "1.0"
    blocks:
      - name: gen_questions
        type: LLMBlock
        config: {config_path: ../../configs/skills/questions.yaml, output_cols: [question], gen_kwargs: {n: scaled}}
        drop_columns: […]
        drop_duplicates: [question]

Every block type of instructlab-sdg 0.8 becomes one or more of ours (``TYPES``). What that library did by mistake is
done right: duplicates are looked for in the whole leaf and not in a batch, the choice of an auxiliary instruction is
seeded, ``YES`` is also found in ``Yes.``, an answer that cannot be read is asked for again. What the form can say and
a chat server decides itself (the model's prompt format) is left out and told in ``notes``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ilab.data import Kind
from ilab.errors import InputError
from ilab.plugins import load, nearest
from ilab.sdg.block import Block
from ilab.sdg.source import Location, Source, explain
from ilab.sdg.upstream_blocks import TYPES, Config, Spec

BLOCK_KEYS = ("name", "type", "config", "drop_columns", "drop_duplicates")
PAIRS = 3  # question-answer pairs of a seed example that reach the prompts


@dataclass
class Translated:
    """``branches`` by name, each block with its ``file:line``; ``errors`` where something cannot be taken over."""

    version: int
    branches: dict[str, list[tuple[Block, str]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    errors: list[InputError] = field(default_factory=list)


def is_upstream(content: Mapping[str, Any]) -> bool:
    """Whether a flow file has upstream's form."""
    return "blocks" in content and "branches" not in content and "metadata" not in content


def root_of(path: Path) -> Path:
    """The folder that a file's prompts may lie in: upstream keeps them beside ``pipelines``, in ``configs``."""
    folder = path.resolve().parent
    return folder.parent.parent if folder.parent.name == "pipelines" else folder


def translate(source: Source, kind: Kind | None) -> Translated:
    """What the file ``source`` says, in our blocks. Faults are collected, not raised.

    For leaves of a ``kind`` it starts from seed examples and ends with samples, as upstream's library makes them
    around a pipeline; without one the blocks are taken as they stand, for rows of one's own.
    """
    made = Translated(1)
    specs = _Translation(source, made).specs()
    if made.errors:
        return made
    for branch, chain in (_branches(specs, source, kind) if kind else {"pipeline": specs}).items():
        made.branches[branch] = []
        for spec in chain:
            build(spec, source, made, branch)
    return made


class _Translation:
    """One file on its way: its blocks one after the other."""

    def __init__(self, source: Source, made: Translated) -> None:
        self._source = source
        self._made = made
        self._notes: list[str] = []

    def specs(self) -> list[Spec]:
        content = self._source.content
        self._check_version(content.get("version"))
        for key in content:
            if key not in ("version", "blocks", "datamixing"):
                self._wrong(f"unknown field {key!r}", (key,), nearest(str(key), ["version", "blocks", "datamixing"]))
        blocks = content["blocks"]
        if not isinstance(blocks, list) or not blocks:
            self._wrong("blocks is a list of blocks", ("blocks",))
            return []
        specs = [spec for index, block in enumerate(blocks) for spec in self._block(block, ("blocks", index))]
        self._made.notes = tuple(dict.fromkeys(self._notes))
        return specs

    def _check_version(self, version: Any) -> None:
        match = re.fullmatch(r"(\d+)\.(\d+)", str(version))
        if match is None:
            self._wrong(f'the version is like "1.0", not {version!r}', ("version",))
        elif int(match.group(1)) > 1:
            self._wrong(f"version {version} is newer than what can be read (1.0)", ("version",))
        elif int(match.group(2)) > 0:
            self._notes.append(f"version {version} is read as 1.0")

    def _block(self, block: Any, at: Location) -> list[Spec]:
        if not isinstance(block, dict):
            self._wrong("a block is a mapping with name, type and config", at)
            return []
        missing = [key for key in ("name", "type") if not isinstance(block.get(key), str)]
        unknown = [key for key in block if key not in BLOCK_KEYS]
        for key in missing:
            self._wrong(f"the field {key!r} is missing", at)
        for key in unknown:
            self._wrong(f"unknown field {key!r}", (*at, str(key)), nearest(str(key), list(BLOCK_KEYS)))
        if missing or unknown:
            return []
        name, type_ = plain_name(block["name"]), block["type"]
        if type_ not in TYPES:
            self._wrong(f"there is no block type {type_!r}", (*at, "type"), nearest(type_, sorted(TYPES)))
            return []
        config = Config(name, block.get("config") or {}, self._source, (*at, "config"), self._notes)
        try:
            specs = TYPES[type_](config)
            config.check_all_used(type_)
        except InputError as error:
            self._made.errors.append(error)
            return []
        if dropped := block.get("drop_columns"):
            specs.append(Spec("drop", f"{name}-drop", {"columns": dropped}, (*at, "drop_columns")))
        if duplicates := block.get("drop_duplicates"):
            specs.append(Spec("dedup", f"{name}-dedup", {"columns": duplicates}, (*at, "drop_duplicates")))
        return specs

    def _wrong(self, message: str, at: Location, hint: str = "") -> None:
        self._made.errors.append(InputError(message, where=self._source.at(at), hint=hint))


def plain_name(name: str) -> str:
    """A block's name as part of a row's id."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "block"


def finished(specs: list[Spec]) -> list[Spec]:
    """With what upstream's later code does to the rows of a pipeline: the answer's name, the context, the split."""
    added = {column for spec in specs for column in spec.made()}
    end: Location = ("blocks",)
    if "output" in added and "response" not in added:
        # The simple pipelines leave it to the first question mark where the question ends.
        split = {
            "question": "{{ output.split('?')[0] ~ '?' if '?' in output else '' }}",
            "answer": "{{ output.split('?')[1:] | join('?') }}",
        }
        specs = [*specs, Spec("expression", "split", {"columns": split}, end)]
        for column in split:
            reason = f"no {column}"
            condition = {"column": column, "operation": "ne", "value": "", "reason": reason}
            specs.append(Spec("filter", f"split-{column}", condition, end))
    elif "response" in added and "answer" not in added:
        specs = [*specs, Spec("rename", "answer", {"columns": {"response": "answer"}}, end)]
    joined = [spec for spec in specs if spec.type == "combine" and spec.fields["output"] == "question"]
    if any("context" in spec.fields["columns"] for spec in joined):
        # The question holds the context already; a sample's prompt must not hold it twice.
        specs = [*specs, Spec("drop", "context", {"columns": ["context"]}, end)]
    return specs


def _branches(specs: list[Spec], source: Source, kind: Kind) -> dict[str, list[Spec]]:
    """The chain of the file, and one more for the auxiliary instructions of ``datamixing``.

    Those teach the texts that knowledge pipelines make of a document on the way (summaries, corrected spelling): the
    document and an instruction are the question, the text made of it is the answer.
    """
    before = example_columns(specs, source) if kind == "knowledge" else []
    branches = {"pipeline": [*before, *finished(specs)]}
    mixing = source.content.get("datamixing") or {}
    instructions = mixing.get("auxiliary_instructions") if isinstance(mixing, dict) else None
    flat, renamed = _made_texts(specs)
    if not isinstance(instructions, dict) or not instructions or flat is None or renamed is None:
        return branches
    at: Location = ("datamixing", "auxiliary_instructions")
    kinds = list(instructions)
    variable = flat.fields["variable"]
    chain = [
        *before,
        *specs[: specs.index(renamed) + 1],
        Spec("filter", "kind", {"column": variable, "operation": "in", "value": kinds, "reason": "no auxiliary"}, at),
        Spec("dedup", "once", {"columns": ["document", variable]}, at),  # one seed example's is as good as another's
        Spec("choose", "instruction", {"output": "instruction", "column": variable, "values": instructions}, at),
        Spec("combine", "question", {"columns": ["raw_document", "instruction"], "output": "question"}, at),
        Spec("duplicate", "answer", {"columns": {"document": "answer"}}, at),
    ]
    branches["auxiliary"] = [spec.renamed(f"auxiliary-{spec.name}") for spec in chain]
    return branches


def _made_texts(specs: list[Spec]) -> tuple[Spec | None, Spec | None]:
    """The blocks that put the texts made of a document beside it: a flatten, then a rename that keeps it as raw."""
    flat = next((spec for spec in specs if spec.type == "flatten"), None)
    later = specs[specs.index(flat) :] if flat else []
    keeps = {"document": "raw_document"}.items()
    renamed = [spec for spec in later if spec.type == "rename" and keeps <= dict(spec.fields["columns"]).items()]
    return flat, renamed[0] if renamed else None


def example_columns(specs: list[Spec], source: Source) -> list[Spec]:
    """``icl_query_1`` … ``icl_response_3`` where a prompt asks for them; fewer pairs than three are taken in turn."""
    columns = {}
    for number in range(PAIRS):
        example = f"examples[{number} % (examples | length)]"
        columns[f"icl_query_{number + 1}"] = f"{{{{ {example}.question }}}}"
        columns[f"icl_response_{number + 1}"] = f"{{{{ {example}.answer }}}}"
    text = "\n".join(str(spec.fields) for spec in specs)
    wanted = {name: template for name, template in columns.items() if name in text}
    return [Spec("expression", "examples", {"columns": wanted}, ("blocks",))] if wanted else []


def build(spec: Spec, source: Source, made: Translated, branch: str) -> None:
    """Put the block of ``spec`` into its branch, or what is wrong with it into ``errors``."""
    cls: type[Block] = load("ilab.blocks", spec.type)
    try:
        block = cls.model_validate({"name": spec.name, **spec.fields})
        block.needs()
    except ValidationError as error:
        made.errors += [
            InputError(wrong.message, where=source.at(spec.at)) for wrong in explain(error, cls, source, ())
        ]
    except InputError as error:
        made.errors.append(InputError(f"block {spec.name!r}: {error.message}", where=source.at(spec.at)))
    else:
        made.branches[branch].append((block, source.at(spec.at)))

"""A flow: how leaves of one kind become samples, as YAML. Loaded and checked wholly before the first paid call.

    name: simple
    version: 1
    branches:
      pairs:
        input: seed            # chunk, seed or leaf: what one input row stands for
        blocks:
          - type: repeat
          - type: llm
            name: write
            prompt: knowledge.txt

Each branch is a chain of blocks of its own over the same leaves; their samples are put together. A flow's folder
holds up to three such files, ``knowledge.yaml``, ``grounded_skills.yaml`` and ``freeform_skills.yaml``. The digest
covers what the flow does, prompt texts included, and neither comments nor the names of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ilab.core.step import fingerprint
from ilab.data import Kind
from ilab.errors import InputError
from ilab.plugins import load, nearest
from ilab.sdg.block import Block

Input = Literal["chunk", "seed", "leaf"]
SHIPPED = Path(__file__).parent / "flows"
FILES: dict[Kind, str] = {
    "knowledge": "knowledge.yaml",
    "grounded": "grounded_skills.yaml",
    "freeform": "freeform_skills.yaml",
}
LEAF_COLUMNS = frozenset({"domain", "document_outline", "task_description"})
CHUNK_COLUMNS = frozenset({"document", "headings"})
MADE = frozenset({"question", "answer"})  # what the last row of a branch must have


@dataclass(frozen=True)
class Branch:
    name: str
    input: Input
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Flow:
    """What is done with leaves of one kind. ``where`` is its file, for messages."""

    name: str
    version: int
    kind: Kind
    branches: tuple[Branch, ...]
    where: str

    @property
    def calls_teacher(self) -> bool:
        return any(block.calls_teacher for branch in self.branches for block in branch.blocks)

    def identity(self) -> dict[str, Any]:
        branches = [
            {"input": branch.input, "blocks": [block.identity() for block in branch.blocks]} for branch in self.branches
        ]
        return {"name": self.name, "version": self.version, "branches": branches}


@dataclass(frozen=True)
class FlowSet:
    """The flows of one folder, by kind of leaf."""

    name: str
    flows: Mapping[Kind, Flow]
    where: str

    @property
    def digest(self) -> str:
        return fingerprint({kind: flow.identity() for kind, flow in self.flows.items()})

    @property
    def calls_teacher(self) -> bool:
        return any(flow.calls_teacher for flow in self.flows.values())


class _BranchFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input: Input
    blocks: list[dict[str, Any]] = Field(min_length=1)


class _FlowFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    version: int = Field(ge=1)
    branches: dict[str, _BranchFile] = Field(min_length=1)


def load_flow(name: str | Path) -> FlowSet:
    """The flow that ships under ``name``, or in the folder ``name``.

    Raises ``InputError`` with file and line for anything that could fail later: an unknown block or field, a
    column that nobody adds, a template that cannot be read.
    """
    shipped = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
    folder = SHIPPED / name if str(name) in shipped else Path(name)
    if not folder.is_dir():
        raise InputError(
            f"there is no flow called {str(name)!r}",
            hint=f"{nearest(str(name), shipped)}; or give a folder with {', '.join(FILES.values())}",
        )
    flows = {kind: _load(folder / file, kind) for kind, file in FILES.items() if (folder / file).is_file()}
    if not flows:
        raise InputError("this folder holds no flow", where=str(folder), hint=f"add {', '.join(FILES.values())}")
    names = sorted({flow.name for flow in flows.values()})
    if len(names) > 1:
        raise InputError(
            f"the files of one flow have different names: {', '.join(names)}",
            where=str(folder),
            hint="give the same name: in each of them",
        )
    return FlowSet(names[0], flows, str(folder))


def input_columns(kind: Kind, source: Input) -> frozenset[str]:
    """The columns of an input row; see :func:`ilab.sdg.inputs.input_rows`."""
    if source == "leaf":
        return LEAF_COLUMNS | {"seeds"}
    if source == "chunk":
        return LEAF_COLUMNS | CHUNK_COLUMNS
    if kind == "knowledge":
        return LEAF_COLUMNS | CHUNK_COLUMNS | {"icl_document", "examples"}
    return LEAF_COLUMNS | {"seed_question", "seed_response", "seed_context"}


@dataclass(frozen=True)
class _Source:
    """A flow file with the lines of its parts."""

    path: Path
    node: yaml.Node

    def at(self, location: tuple[str | int, ...]) -> str:
        """``file:line`` of the deepest part of ``location`` that stands in the file."""
        node, line = self.node, 1
        for step in location:
            found = None
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == step), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                found = (node.value[step], node.value[step])
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return f"{self.path}:{line}"


def _load(path: Path, kind: Kind) -> Flow:
    source, content = _read(path)
    try:
        file = _FlowFile.model_validate(content)
    except ValidationError as error:
        raise _explain(error, _FlowFile, source, ()) from error
    branches = []
    for name, branch in file.branches.items():
        blocks = tuple(
            _block(config, source, ("branches", name, "blocks", index)) for index, config in enumerate(branch.blocks)
        )
        branches.append(Branch(name, branch.input, blocks))
    flow = Flow(file.name, file.version, kind, tuple(branches), str(path))
    _check(flow, source)
    return flow


def _read(path: Path) -> tuple[_Source, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"not YAML: {getattr(error, 'problem', None) or error}", where=where) from error
    if not isinstance(node, yaml.MappingNode):
        raise InputError("a flow is a mapping with name, version and branches", where=str(path))
    return _Source(path, node), content


def _block(config: dict[str, Any], source: _Source, at: tuple[str | int, ...]) -> Block:
    type_ = config.get("type")
    if not isinstance(type_, str):
        raise InputError("a block needs a type", where=source.at(at), hint="for example: type: llm")
    cls: type[Block] = load("ilab.blocks", type_, where=source.at((*at, "type")))
    fields = {"name": type_, **{name: value for name, value in config.items() if name != "type"}}
    for name in cls.files:
        if isinstance(fields.get(name), str):
            fields[name] = _text(source.path.parent, fields[name], source.at((*at, name)))
    try:
        block = cls.model_validate(fields)
        block.needs()  # reads the templates
    except ValidationError as error:
        raise _explain(error, cls, source, at) from error
    except InputError as error:
        raise InputError(f"block {fields['name']!r}: {error.message}", where=source.at(at)) from error
    return block


def _text(folder: Path, name: str, where: str) -> str:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{name!r} lies outside the flow's folder", where=where, hint=f"copy it to {folder}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file {name!r} cannot be read: {error}", where=where) from error


def _check(flow: Flow, source: _Source) -> None:
    """Names are unique, and every needed column is there when it is needed."""
    seen: set[str] = set()
    for branch in flow.branches:
        if flow.kind != "knowledge" and branch.input == "chunk":
            raise InputError(
                "skills have no documents, so there are no chunks",
                where=source.at(("branches", branch.name, "input")),
                hint=f"input: one of {', '.join(name for name in get_args(Input) if name != 'chunk')}",
            )
        known = input_columns(flow.kind, branch.input)
        for index, block in enumerate(branch.blocks):
            where = source.at(("branches", branch.name, "blocks", index))
            if block.name in seen:
                raise InputError(
                    f"two blocks are called {block.name!r}", where=where, hint="give one a name: of its own"
                )
            seen.add(block.name)
            for column in sorted(block.needs() - known):
                raise InputError(
                    f"block {block.name!r} needs the column {column!r}, which is not there yet",
                    where=where,
                    hint=nearest(column, sorted(known)),
                )
            known |= block.adds()
        for column in sorted(MADE - known):
            raise InputError(
                f"branch {branch.name!r} ends without a column {column!r}",
                where=source.at(("branches", branch.name)),
                hint=f"its rows have: {', '.join(sorted(known))}",
            )


def _explain(error: ValidationError, cls: type[BaseModel], source: _Source, at: tuple[str | int, ...]) -> InputError:
    """The first thing that pydantic found wrong, in words, with its line."""
    first = error.errors()[0]
    location = (*at, *first["loc"])
    where = source.at(location)
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _BranchFile if cls is _FlowFile and len(first["loc"]) > 1 else cls
        return InputError(f"unknown field {field!r}", where=where, hint=nearest(field, sorted(known.model_fields)))
    if first["type"] == "missing":
        return InputError(f"the field {field!r} is missing", where=where)
    return InputError(f"{field}: {first['msg']}" if field else first["msg"], where=where)

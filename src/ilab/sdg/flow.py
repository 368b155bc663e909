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

Files in instructlab-sdg's form (``version: "1.0"`` and ``blocks``) are taken as they are; :mod:`ilab.sdg.upstream`
says what their blocks become. So is a ``flow.yaml`` in sdg_hub's form, for knowledge (:mod:`ilab.sdg.hub`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ilab.core.step import fingerprint
from ilab.data import Kind
from ilab.errors import InputError, InputErrors
from ilab.plugins import load, nearest
from ilab.sdg.asking import AskingBlock
from ilab.sdg.block import Block
from ilab.sdg.hub import is_hub, translate_hub
from ilab.sdg.source import Location, Source, explain, read_source
from ilab.sdg.upstream import Translated, is_upstream, root_of, translate

Input = Literal["chunk", "seed", "leaf"]
SHIPPED = Path(__file__).parent / "flows"
FILES: dict[Kind, str] = {
    "knowledge": "knowledge.yaml",
    "grounded": "grounded_skills.yaml",
    "freeform": "freeform_skills.yaml",
}
HUB_FILE = "flow.yaml"
LEAF_COLUMNS = frozenset({"domain", "document_outline", "task_description"})
CHUNK_COLUMNS = frozenset({"document", "headings"})
MADE = frozenset({"question", "answer"})  # what the last row of a branch must have


@dataclass(frozen=True)
class Branch:
    """A chain of blocks. ``where`` is its ``file:line`` and ``places`` are those of the blocks, for messages."""

    name: str
    input: Input
    blocks: tuple[Block, ...]
    where: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """What is done with leaves of one kind, or with rows of one's own. ``where`` is its file, for messages.

    ``notes`` say what was read differently than the file may have been meant.
    """

    name: str
    version: int
    kind: Kind | None
    branches: tuple[Branch, ...]
    where: str
    notes: tuple[str, ...] = ()

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

    def capped(self, tokens: int) -> FlowSet:
        """The same with answers of at most so many tokens, which is another flow."""
        return replace(self, flows={kind: _capped(flow, tokens) for kind, flow in self.flows.items()})


class _BranchFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input: Input
    blocks: list[dict[str, Any]] = Field(min_length=1)


class _FlowFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    version: int = Field(ge=1)
    branches: dict[str, _BranchFile] = Field(min_length=1)


def shipped() -> list[str]:
    """The names of the flows that ship with ilab."""
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


def load_flow(name: str | Path) -> FlowSet:
    """The flow that ships under ``name``, or in the folder ``name``.

    Raises ``InputError`` with file and line for anything that could fail later: an unknown block or field, a
    column that nobody adds, a template that cannot be read. Of several faults all are told (``InputErrors``).
    """
    known = shipped()
    folder = SHIPPED / name if str(name) in known else Path(name)
    if not folder.is_dir():
        raise InputError(
            f"there is no flow called {str(name)!r}",
            hint=f"{nearest(Path(name).name, known)}; or give a folder with {', '.join(FILES.values())}",
        )
    flows: dict[Kind, Flow] = {}
    errors: list[InputError] = []
    for kind, path in _files(folder).items():
        flow, wrong = _load(path, kind)
        errors += wrong or check_columns(flow)
        flows[kind] = flow
    raise_all(errors)
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


def load_file(path: Path) -> Flow:
    """The flow in one file, for input rows of one's own: their columns are not looked at.

    Raises ``InputError`` for everything else that could fail later.
    """
    flow, errors = _load(path, None)
    raise_all(errors)
    return flow


def find_file(name: str | Path, kind: Kind | None) -> Path:
    """The one flow file that ``name`` means: a file, or that for ``kind`` in a shipped flow or a folder.

    Raises ``InputError`` where there is none, or several and no ``kind``.
    """
    folder = SHIPPED / name if str(name) in shipped() else Path(name)
    if folder.is_file():
        return folder
    found = _files(folder)
    if kind in found:
        return found[kind]
    if len(found) == 1 and kind is None:
        return next(iter(found.values()))
    if found and kind is None:
        raise InputError(
            "this flow has a file for each kind of leaf", where=str(name), hint=f"--kind {' | '.join(found)}"
        )
    missing = f"nothing for {kind} leaves" if found else "no flow here"
    hint = f"it has {', '.join(found)}" if found else nearest(Path(name).name, shipped())
    raise InputError(f"there is {missing}", where=str(name), hint=hint)


def _capped(flow: Flow, tokens: int) -> Flow:
    def cap(block: Block) -> Block:
        if isinstance(block, AskingBlock) and block.max_tokens > tokens:
            return block.model_copy(update={"max_tokens": tokens})
        return block

    branches = [replace(branch, blocks=tuple(map(cap, branch.blocks))) for branch in flow.branches]
    return replace(flow, branches=tuple(branches))


def _files(folder: Path) -> dict[Kind, Path]:
    """The flow file for each kind of leaf."""
    found: dict[Kind, Path] = {kind: folder / file for kind, file in FILES.items() if (folder / file).is_file()}
    if not found and (folder / HUB_FILE).is_file():
        return {"knowledge": folder / HUB_FILE}
    return found


def raise_all(errors: Sequence[InputError]) -> None:
    """Raise what is wrong, if anything is: by file, and in each by line."""
    if len(errors) == 1:
        raise errors[0]
    files = list(dict.fromkeys(error.where.partition(":")[0] for error in errors))
    if errors:
        raise InputErrors(sorted(errors, key=lambda error: (files.index(error.where.partition(":")[0]), _line(error))))


def _line(error: InputError) -> int:
    line = error.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def input_columns(kind: Kind | None, source: Input) -> frozenset[str]:
    """The columns of an input row; see :func:`ilab.sdg.inputs.input_rows`."""
    if source == "leaf":
        return LEAF_COLUMNS | {"seeds"}
    if source == "chunk":
        return LEAF_COLUMNS | CHUNK_COLUMNS
    if kind == "knowledge":
        return LEAF_COLUMNS | CHUNK_COLUMNS | {"icl_document", "examples"}
    return LEAF_COLUMNS | {"seed_question", "seed_response", "seed_context"}


def check_columns(flow: Flow, given: frozenset[str] | None = None) -> list[InputError]:
    """What a block of ``flow`` needs and is not there when it is needed.

    ``given`` are the columns of the input rows; without them those of leaves and chunks, of which samples must come.
    """
    return [error for branch in flow.branches for error in _check_branch(flow, branch, given)]


def _check_branch(flow: Flow, branch: Branch, given: frozenset[str] | None) -> list[InputError]:
    errors = []
    known = input_columns(flow.kind, branch.input) if given is None else given
    for block, where in zip(branch.blocks, branch.places, strict=True):
        missing = sorted(block.needs() - known)
        for column in missing:
            errors.append(
                InputError(
                    f"block {block.name!r} needs the column {column!r}, which is not there yet",
                    where=where,
                    hint=nearest(column, sorted(known)),
                )
            )
        known = (known | set(missing) | block.adds()) - (block.drops() - block.adds())  # what is missing is told once
    for column in sorted(MADE - known) if given is None else ():
        errors.append(
            InputError(
                f"branch {branch.name!r} ends without a column {column!r}",
                where=branch.where,
                hint=f"its rows have: {', '.join(sorted(known))}",
            )
        )
    return errors


def _load(path: Path, kind: Kind | None) -> tuple[Flow, list[InputError]]:
    """The flow of one file, as far as it can be read, and what is wrong with it besides its columns.

    Without a ``kind`` it is for rows of one's own.
    """
    source = read_source(path)
    if is_upstream(source.content):
        name = path.resolve().parent.name  # a file in this form has no name of its own
        return _translated(translate(read_source(path, root_of(path)), kind), source, name, kind)
    if is_hub(source.content):
        metadata = source.content["metadata"]
        name = str(metadata.get("name") or path.stem) if isinstance(metadata, dict) else path.stem
        return _translated(translate_hub(source, kind), source, name, kind)
    try:
        file = _FlowFile.model_validate(source.content)
    except ValidationError as error:
        return Flow("", 1, kind, (), str(path)), explain(error, _FlowFile, source, ())
    errors: list[InputError] = []
    branches = []
    for name, branch in file.branches.items():
        at: Location = ("branches", name)
        if kind in ("grounded", "freeform") and branch.input == "chunk":
            choices = ", ".join(choice for choice in get_args(Input) if choice != "chunk")
            errors.append(
                InputError(
                    "skills have no documents, so there are no chunks",
                    where=source.at((*at, "input")),
                    hint=f"input: one of {choices}",
                )
            )
        placed: list[tuple[Block, str]] = []
        for index, config in enumerate(branch.blocks):
            made = _block(config, source, (*at, "blocks", index), errors)
            placed += [(made, source.at((*at, "blocks", index)))] if made else []
        branches.append(_branch(name, branch.input, placed, source.at(at)))
    flow = Flow(file.name, file.version, kind, tuple(branches), str(path))
    # A block that could not be read may be the one that adds a column: columns are looked at when all are there.
    return flow, errors + _names_differ(flow)


def _translated(made: Translated, source: Source, name: str, kind: Kind | None) -> tuple[Flow, list[InputError]]:
    """A file of another form, in our blocks."""
    branches = tuple(_branch(title, "seed", blocks, source.at(("blocks",))) for title, blocks in made.branches.items())
    flow = Flow(name, made.version, kind, branches, str(source.path), made.notes)
    return flow, made.errors or _names_differ(flow)


def _branch(name: str, source: Input, placed: Sequence[tuple[Block, str]], where: str) -> Branch:
    return Branch(name, source, tuple(block for block, _ in placed), where, tuple(place for _, place in placed))


def _block(config: dict[str, Any], source: Source, at: Location, errors: list[InputError]) -> Block | None:
    """The block of ``config``, or None with what is wrong put into ``errors``."""
    type_ = config.get("type")
    if not isinstance(type_, str):
        errors.append(InputError("a block needs a type", where=source.at(at), hint="for example: type: llm"))
        return None
    try:
        cls: type[Block] = load("ilab.blocks", type_, where=source.at((*at, "type")))
        fields = {"name": type_, **{name: value for name, value in config.items() if name != "type"}}
        for name in cls.files:
            fields |= {name: _texts(fields[name], source, (*at, name))} if name in fields else {}
        block = cls.model_validate(fields)
    except ValidationError as error:
        errors += explain(error, cls, source, at)
    except InputError as error:
        errors.append(error)
    else:
        try:
            block.needs()  # reads the templates
            return block
        except InputError as error:
            errors.append(InputError(f"block {block.name!r}: {error.message}", where=source.at(at)))
    return None


def _texts(value: Any, source: Source, at: Location) -> Any:
    """The text of the file that ``value`` names, or a mapping of texts for a mapping of names."""
    if isinstance(value, str):
        return source.text(value, at)
    if isinstance(value, Mapping):
        named = value.items()
        return {key: source.text(name, (*at, key)) if isinstance(name, str) else name for key, name in named}
    return value


def _names_differ(flow: Flow) -> list[InputError]:
    seen: set[str] = set()
    errors = []
    for branch in flow.branches:
        for block, where in zip(branch.blocks, branch.places, strict=True):
            if block.name in seen:
                errors.append(
                    InputError(f"two blocks are called {block.name!r}", where=where, hint="give one a name: of its own")
                )
            seen.add(block.name)
    return errors

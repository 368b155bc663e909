"""A step: what is done, its identity, and what it hands on.

A :class:`Step` is a frozen value. *Its fields are its identity*: the key is a hash of (type, version, fields, keys of
the inputs), so anything that must not change the result (paths, endpoints, devices, concurrency) has no place among
the fields; it reaches ``run`` in one :class:`Site`. There is no list of fields to leave out.

    class Train(Step):
        type = "train"
        version = 1
        epochs: int = 7

        def run(self, dataset: Dataset, base: Checkpoint, *, out: Candidates, site: Site) -> Counts: ...

The signature of ``run`` declares the wiring: positional parameters are inputs (an artifact class, an optional one, or
a mapping of names to artifacts), ``out`` is what the step makes. A field annotated with :class:`Resolve` holds the
digest of something outside the store (a folder, a git commit, a model). The pipeline file gives a locator there; the
resolver turns it into the digest before anything is keyed, and :class:`Site` knows where the digest was found.
"""

from __future__ import annotations

import builtins
import hashlib
import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Union

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from ilab.config import Where
    from ilab.core.events import Emit
    from ilab.core.memo import Memo

Counts = dict[str, int]
KEY_LENGTH = 32  # hex digits of SHA-256 that name an artifact: 128 bits


class Artifact:
    """A directory in the store. Subclasses know how their kind is read and written, nothing more."""

    kind: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"


@dataclass(frozen=True)
class Resolve:
    """Marks a step field that holds the digest of something found by the resolver named ``by``."""

    by: str


@dataclass(frozen=True)
class Found:
    """What a resolver made of a locator: the ``digest`` is identity, the rest is where it was found."""

    digest: str
    locator: str
    revision: str = ""  # a commit, for people and for fetching; never identity
    details: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Site:
    """All a step may know about *where* it runs. Nothing here may change the bytes of a result."""

    where: Where
    work: Path  # scratch of this step and key: survives a crash, gone once the artifact is published
    found: Mapping[str, Found]  # digest -> where it lies
    emit: Emit
    memo: Callable[[str], Memo]  # the item-level cache of a name ("teacher", "rows")
    stopping: Callable[[], bool]
    history: Callable[[], list[dict[str, Any]]]  # records of all steps this one stands on, inputs before outputs
    address: Callable[[Path], str] = str  # what everybody who has the store opens an artifact's folder by
    fetch: Callable[[str], Path] = Path  # that folder, whole, by its address; it need not be there

    def locate(self, digest: str) -> Found:
        """Where the thing with this digest was found when the plan was made."""
        return self.found[digest]


@dataclass(frozen=True)
class InputSpec:
    """One declared input of a step: the artifact class it accepts, and how many."""

    name: str
    accepts: tuple[type[Artifact], ...]
    optional: bool
    many: bool


class Step(BaseModel):
    """Base of all steps. See the module docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: ClassVar[str]
    version: ClassVar[int] = 1
    cheap: ClassVar[bool] = False  # reads files only: may be made while planning, to say what the rest will cost

    def key(self, inputs: Mapping[str, str | Mapping[str, str]]) -> str:
        """The step's identity given the keys of its inputs (a mapping for an input that takes many)."""
        return fingerprint(self.type, self.version, self.fields(), inputs)

    def fields(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def only_reads(self) -> bool:
        """Whether running it, as it is set, costs next to nothing, as ``cheap`` says of its type."""
        return self.cheap

    def expect(self, inputs: Mapping[str, Any], site: Site) -> dict[str, float]:
        """What running would cost (``calls``, ``tokens``, ``seconds``), from the inputs that exist already."""
        return {}

    def still_holds(self, out: Any, site: Site) -> bool:
        """Whether an effect outside the store (a registry entry) is still there; a step without one says yes."""
        return True

    @classmethod
    def inputs(cls) -> dict[str, InputSpec]:
        return _signature(cls)[0]

    @classmethod
    def makes(cls) -> builtins.type[Artifact]:
        return _signature(cls)[1]

    @classmethod
    def resolvable(cls) -> dict[str, Resolve]:
        """Field name to resolver, for the fields that hold digests of outside things."""
        return {
            name: mark for name, info in cls.model_fields.items() for mark in info.metadata if isinstance(mark, Resolve)
        }


@cache
def _signature(cls: type[Step]) -> tuple[dict[str, InputSpec], type[Artifact]]:
    """Read inputs and output off ``run``'s annotations, once per class."""
    run: Callable[..., Any] = getattr(cls, "run")  # noqa: B009 - each step types its own
    hints = typing.get_type_hints(run)
    specs: dict[str, InputSpec] = {}
    for name, parameter in inspect.signature(run).parameters.items():
        if name in ("self", "out", "site"):
            continue
        hint, many = hints[name], False
        if typing.get_origin(hint) in (dict, Mapping):
            hint, many = typing.get_args(hint)[1], True
        members = typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType) else (hint,)
        specs[name] = InputSpec(
            name=name,
            accepts=tuple(member for member in members if member is not type(None)),
            optional=parameter.default is not inspect.Parameter.empty,
            many=many,
        )
    return specs, hints["out"]


def fingerprint(*parts: Any) -> str:
    """The short hash of ``parts`` in canonical JSON."""
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:KEY_LENGTH]


def canonical(value: Any) -> str:
    """``value`` as canonical JSON: sorted keys, no spaces, no NaN. Refuses whatever has no stable form.

    Raises ``TypeError`` for sets, bytes, objects and non-string keys, ``ValueError`` for NaN and infinities: their
    text form could differ between two runs, and two different things could share one.
    """
    _refuse_unstable(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _refuse_unstable(value: Any, at: str) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{at} is {value}: not a number that can be hashed")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{at} has the key {key!r}: only strings are stable keys")
            _refuse_unstable(item, f"{at}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_unstable(item, f"{at}[{index}]")
    else:
        raise TypeError(f"{at} is a {type(value).__name__}: no stable form; give text, numbers, lists or mappings")

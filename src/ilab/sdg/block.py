"""A block turns one row into rows. Everything a flow does is made of them.

    Row(id, leaf, columns, trace) ──Block──▶ [Row, …]     or  raise Reject(reason)

A block is a frozen configuration. It says which columns it ``needs`` and ``adds``, so that a whole flow is checked
before the first paid call, and it knows nothing of its neighbours. A child's id is its parent's id, a slash and a
label, so an id is the path that the row took. Blocks that work by rule derive from :class:`RuleBlock`: their rows
are memoised by content, which is how a run knows what it made anew. Blocks that compare rows derive from
:class:`GatherBlock`: they see those of a leaf together, and answer for each.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from ilab.core.memo import Memo
from ilab.core.step import fingerprint
from ilab.data import Verdict, short
from ilab.models.ability import Ability
from ilab.models.cached import Cached


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a row comes from and how it was made, besides its columns. See :class:`ilab.data.Origin`.

    ``block`` is the block that wrote the answer; ``memoised`` says that no block on the way made anything anew.
    """

    leaf_digest: str = ""
    document: str | None = None
    source: str | None = None
    chunk: str | None = None
    page: int | None = None
    span: tuple[int, int] | None = None
    block: str = ""
    prompt: str | None = None
    teacher: str | None = None
    reported: dict[str, Any] | None = None
    sampling: dict[str, Any] | None = None
    usage: dict[str, int] | None = None
    verdicts: tuple[Verdict, ...] = ()
    memoised: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """What moves through a flow. ``columns`` hold plain JSON values; neither they nor the row are ever changed."""

    id: str
    leaf: str
    columns: Mapping[str, Any]
    trace: Trace = field(default_factory=Trace)

    def child(self, label: str, columns: Mapping[str, Any], trace: Trace | None = None) -> Row:
        """This row with more or other ``columns``, under its own id."""
        return Row(f"{self.id}/{label}", self.leaf, {**self.columns, **columns}, trace or self.trace)

    def same(self, trace: Trace) -> Row:
        """This very row with another trace."""
        return replace(self, trace=trace)

    def holding(self, columns: Mapping[str, Any]) -> Row:
        """This very row with these columns and no others."""
        return replace(self, columns=columns)


class Reject(Exception):
    """Raised by a block that refuses a row. ``kind`` is counted, ``detail`` is for the reader of that one row.

    ``shown`` are values to keep beside the row, such as the ``raw`` answer.
    """

    def __init__(self, kind: str, detail: str = "", **shown: Any) -> None:
        super().__init__(kind)
        self.reason = f"{kind}: {detail}" if detail else kind
        self.shown = shown


@dataclass(frozen=True)
class Context:
    """What blocks may use besides the row. ``teacher`` is None in flows that call no model.

    ``model`` is the teacher's served name, ``seed`` the run's, ``scale`` the scale factor (samples per input row),
    ``quality`` (0 to 1) the lowest score with which a judge lets a row pass. ``verifier`` is a second teacher, another
    model at an endpoint of its own, and ``verifier_model`` its served name.
    """

    rows: Memo
    seed: int
    scale: int
    teacher: Cached | None = None
    model: str = ""
    quality: float = 0.7
    verifier: Cached | None = None
    verifier_model: str = ""


def content_name(columns: Mapping[str, Any]) -> str:
    """A short name for a pair by what it says, for the id of a row that has no other natural one."""
    return short(fingerprint(columns["question"], columns.get("context"), columns["answer"]))


def _check_count(value: str | int) -> str:
    if not re.fullmatch(r"[1-9]\d*|scale|[1-9]\d* x scale", str(value)):
        raise ValueError("a count is a number, 'scale' (the scale factor), or like '8 x scale'")
    return str(value)


Count = Annotated[str | int, AfterValidator(_check_count)]


def resolve_count(count: str | int, scale: int) -> int:
    """The number that a :data:`Count` stands for at a scale factor."""
    number, _, times = str(count).partition(" x ")
    if number == "scale":
        return scale
    return int(number) * (scale if times else 1)


class Block(BaseModel, ABC):
    """Base of all blocks: the configuration in a flow file, and what is done with one row.

    ``name`` is unique in a flow file and stands in provenance and counts; ``at_most`` keeps that many of the rows
    that one row gives, chosen by their ids. ``version`` changes whenever the same configuration gives other rows.
    ``files`` are the fields that name a file in the flow's folder, or are mappings of such names; they hold the
    *text* once the flow is loaded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: ClassVar[str]
    version: ClassVar[int] = 1
    calls_teacher: ClassVar[bool] = False
    calls_verifier: ClassVar[bool] = False
    asks: ClassVar[int] = 1  # most calls for one row, where the teacher is asked again
    files: ClassVar[tuple[str, ...]] = ()

    name: str
    at_most: Count | None = None

    @abstractmethod
    def needs(self) -> frozenset[str]:
        """Columns that a row must have."""

    @abstractmethod
    def adds(self) -> frozenset[str]:
        """Columns that every row it makes has in addition."""

    def drops(self) -> frozenset[str]:
        """Columns that its rows no longer have."""
        return frozenset()

    @abstractmethod
    async def __call__(self, row: Row, context: Context) -> list[Row]:
        """Rows made from ``row``. Raises :class:`Reject` to refuse it."""

    def abilities(self, scale: int) -> frozenset[Ability]:
        """What it needs of its endpoint besides an answer in words; looked at before the first paid call."""
        return frozenset()

    def own_text(self) -> int:
        """Characters of its own files that every call sends, the longest where a row chooses one of several."""
        given = [getattr(self, name) for name in self.files]
        return sum(
            max(map(len, text.values()), default=0) if isinstance(text, Mapping) else len(text) for text in given
        )

    def copies(self, scale: int) -> int:
        """How many rows it makes of one, as far as that can be known beforehand."""
        return 1

    def label(self, label: str) -> str:
        """``label``, made unique among blocks of the same type by the block's name where it has one of its own."""
        return label if self.name == self.type else f"{self.name}-{label}"

    def identity(self) -> dict[str, Any]:
        """What makes a difference to the rows: type, version and configuration."""
        return {"type": self.type, "version": self.version, **self.model_dump(mode="json", exclude_none=True)}


class GatherBlock(Block):
    """A block that must see the rows of a leaf (in one branch) together before it can say anything of one of them.

    A row waits before it until every other row of its leaf has come as far or has been refused. It is the one kind
    of barrier there is; rows of other leaves go on meanwhile.
    """

    @abstractmethod
    def gather(self, rows: Sequence[Row], context: Context) -> list[Row | Reject]:
        """What becomes of each of ``rows``, which come in the order of their ids: the very row, or why it goes."""

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        """As if the row were alone."""
        [answer] = self.gather([row], context)
        if isinstance(answer, Reject):
            raise answer
        return [answer]


class RuleBlock(Block):
    """A block that derives rows by rule, from its needed columns alone. ``seeded``: also from seed and scale."""

    seeded: ClassVar[bool] = False

    @abstractmethod
    def derive(self, row: Row, context: Context) -> list[tuple[str, dict[str, Any]]]:
        """(label, columns) of each row made. Labels are unique within the call."""

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        drawn = [context.seed, context.scale] if self.seeded else []
        needed = {name: row.columns[name] for name in sorted(self.needs())}
        # Neither the block's name nor the cut made afterwards changes what is derived.
        rule = {name: value for name, value in self.identity().items() if name not in ("name", "at_most")}
        key = fingerprint("rows", rule, row.id, needed, drawn)
        stored = context.rows.get(key)
        made = stored if stored is not None else self.derive(row, context)
        if stored is None:
            context.rows.put(key, made)
        trace = replace(row.trace, memoised=row.trace.memoised and stored is not None)
        if "answer" in self.adds():
            trace = replace(trace, block=self.name)
        return [row.child(self.label(label), columns, trace) for label, columns in made]

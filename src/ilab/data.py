"""The records that flow, frozen in memory, one JSON object a line on disk.

    Leaf ──documents──▶ Document ──▶ Chunk ──flow──▶ Sample ──mix──▶ training
      └────────────────held-out────▶ Item ──model──▶ Score ──▶ report, gate

Every record's ``id`` is the path of its origin: ``knowledge/x/y#9c41ab02/definition-3`` is a leaf, the short hash of a
chunk's *text*, and the branch taken inside the flow. Text, not position: a paragraph inserted above must not make
every later chunk new. So an id gives provenance for nothing, and seeds derived from ids never depend on order or time.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["knowledge", "grounded", "freeform"]  # what a leaf teaches; the last two are skills
Split = Literal["dev", "test"]  # dev chooses checkpoints and weights; test is for the final figures alone
ItemKind = Literal["mcq", "exact", "free"]
Role = Literal["system", "user", "assistant"]
TrainOn = Literal["assistant", "last", "all"]  # which messages bear loss; ``last``: the last answer alone


class Record(BaseModel):
    """Base of everything that flows: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(Record):
    """Where in a person's file something stands (1-based line and column)."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class QuestionAnswer(Record):
    question: str
    answer: str
    place: Place


class SeedExample(Record):
    """One hand-written example. Skills have one pair, knowledge of version 3 has several under one context."""

    context: str | None = None
    pairs: tuple[QuestionAnswer, ...]
    place: Place


class DocumentRef(Record):
    """Which documents a leaf is about: files of a git repository, local files, web pages, or a text on the spot.

    ``repo`` is a git URL and ``commit`` any ref of it; ``patterns`` are glob patterns relative to that repository, or
    without ``repo`` to the leaf's folder (a folder stands for all documents below it). ``urls`` are http(s)
    addresses of single documents, ``text`` is Markdown that stands in the ``qna.yaml`` itself. A reference is one of
    the four; a leaf may have several.
    """

    repo: str | None = None
    commit: str | None = None
    patterns: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    text: str | None = None
    place: Place


class Item(Record):
    """One held-out question. It never enters training, nor does a near-copy of it.

    ``gold`` is the right answer as *text*; for ``mcq`` it is one of ``options``. ``cluster`` groups items that are not
    independent (same chunk or document) for standard errors. ``origin`` is ``person`` or the flow that made it. Of an
    ``unanswerable`` item the documents say nothing: the right answer is that one does not know. ``shots`` are solved
    questions, (question, answer), that stand before it.
    """

    id: str
    leaf: str
    split: Split
    kind: ItemKind
    question: str
    context: str | None = None
    options: tuple[str, ...] = ()
    gold: str
    cluster: str
    origin: str = "person"
    unanswerable: bool = False
    shots: tuple[tuple[str, str], ...] | None = None


class Leaf(Record):
    """One ``qna.yaml``. ``path`` is its folder below the taxonomy root and its name everywhere.

    ``digest`` covers what the leaf teaches (not where it lies, nor its held-out ``items``).
    """

    path: str
    kind: Kind
    version: int
    created_by: str
    task: str = ""
    domain: str = ""
    outline: str = ""
    seeds: tuple[SeedExample, ...]
    documents: tuple[DocumentRef, ...] = ()
    items: tuple[Item, ...] = ()
    attribution: str | None = None
    digest: str
    place: Place


FlagKind = Literal["hidden-text", "instruction", "control-character", "invisible-character"]
Action = Literal["kept", "left out"]


class Flag(Record):
    """Something in a document that a reader would not see, or that speaks to a model instead of a reader.

    ``place`` is where it stood, for people (``line 12``, ``page 3``); ``excerpt`` at most 80 characters of it.
    """

    kind: FlagKind
    source: str
    place: str
    excerpt: str
    action: Action


class Document(Record):
    """A converted document. ``id`` is the hash of its text; ``text`` is Markdown; ``source`` its origin.

    ``pages`` are the offsets in ``text`` at which its pages begin, empty for formats without pages.
    """

    id: str
    leaf: str
    source: str
    title: str
    text: str
    pages: tuple[int, ...] = ()
    flags: tuple[Flag, ...] = ()


class Chunk(Record):
    """A passage of a document. ``id`` is the short hash of ``text``; ``span`` are character offsets in the document.

    ``page`` is the (1-based) page on which it begins, ``None`` for documents without pages.
    """

    id: str
    leaf: str
    document: str
    source: str
    heading: tuple[str, ...]
    page: int | None = None
    span: tuple[int, int]
    text: str
    tokens: int


class Message(Record):
    role: Role | Literal["tool"]
    content: str


class Turn(Message):
    """A message with what OpenAI's format adds, as far as a chat template may write it.

    ``tool_calls`` are ``{"type": "function", "function": {"name", "arguments"}}``; a message that calls need say
    nothing. A message with the role ``tool`` is what a function gave back, ``tool_call_id`` the call it answers.
    """

    content: str = ""
    reasoning_content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Verdict(Record):
    """What one filter or judge said about a row."""

    block: str
    accepted: bool
    reason: str
    score: float | None = None


class Origin(Record):
    """Provenance of a sample, always kept: enough to answer "why does the model say this?" by search."""

    leaf: str
    leaf_digest: str
    document: str | None = None
    source: str | None = None
    chunk: str | None = None
    page: int | None = None
    span: tuple[int, int] | None = None
    evidence: str | None = None
    flow: str
    block: str
    prompt: str | None = None  # digest of the prompt template
    teacher: str | None = None
    reported: dict[str, Any] | None = None  # what the server said of itself: model, fingerprint
    sampling: dict[str, Any] | None = None
    usage: dict[str, int] | None = None
    verdicts: tuple[Verdict, ...] = ()


class Sample(Record):
    """One training example. ``context`` is what the user's message holds besides the question, after a line end."""

    id: str
    leaf: str
    messages: tuple[Message, ...]
    context: str | None = None
    train_on: TrainOn = "assistant"
    origin: Origin

    @property
    def question(self) -> str:
        return next((m.content for m in self.messages if m.role == "user"), "")

    @property
    def answer(self) -> str:
        return self.messages[-1].content


class Rejected(Record):
    """A row that did not become a sample, with the block that refused it, the reason, and what was refused."""

    id: str
    leaf: str
    block: str
    reason: str
    row: dict[str, Any]


class TrainingRow(Record):
    """One row of a mixed dataset: InstructLab's ``messages``/``metadata``/``id``/``unmask`` in typed form.

    ``source`` is what it stands in the mix for (``knowledge``, ``document``, ``skill``, ``raft``, ``precomputed``,
    ``replay``), ``sample`` the id of the sample it was made from. A row of a precomputed dataset has that for its leaf.
    A row has either ``messages``, with the ``tools`` that may be called, or the ``text`` of a whole document.
    """

    id: str
    leaf: str
    source: str
    sample: str
    messages: tuple[Message | Turn, ...] = ()
    text: str | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    train_on: TrainOn = "assistant"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.messages) is (self.text is not None):
            raise ValueError("a row has either messages or a text")
        return self


class Score(Record):
    """One model's result on one item. ``value`` is in 0..1, or ``None`` when unscored (``note`` says why).

    ``likelihoods`` are summed log-probabilities (nats) of the options, in the item's order; ``answer`` is what the
    model chose or wrote. ``metrics`` are further figures of the same item by name, each in 0..1 unless its name says
    otherwise: ``f1``, ``judge``, ``open`` (the same question with its passage), ``bits`` (per byte of the gold answer).
    """

    item: str
    leaf: str
    model: str
    kind: ItemKind
    cluster: str
    value: float | None = None
    answer: str | None = None
    likelihoods: tuple[float, ...] = ()
    metrics: dict[str, float] = Field(default_factory=dict)
    note: str = ""


class Judgment(Record):
    """What a judge said about one answer. ``mark`` is in 0..1 (the scale's ends), or ``None`` with a ``note``.

    ``replies`` are the judge's texts as they came, one for each pass; ``marks`` what was read from each.
    """

    item: str
    leaf: str
    model: str
    judge: str
    mark: float | None = None
    marks: tuple[float | None, ...] = ()
    replies: tuple[str, ...] = ()
    note: str = ""


def digest_text(text: str) -> str:
    """SHA-256 of ``text`` in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def short(digest: str) -> str:
    """The first eight hex digits: enough to be unique inside one leaf, short enough to read."""
    return digest[:8]


def seed_from(identity: str, seed: int) -> int:
    """A 63-bit seed derived from an id and the run's seed, never from position or time."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{identity}".encode()).digest()[:8], "big") >> 1

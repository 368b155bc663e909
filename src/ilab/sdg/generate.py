"""From leaves and their chunks to samples: run the flow, remove duplicates and held-out items, count everything.

Generation is one pure function of a :class:`Job`; what was asked and derived before comes from the memo. Nothing
vanishes: a row that does not become a sample is in ``rejected`` with the block that refused it and the reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ilab.core.events import Emit
from ilab.core.memo import Memo
from ilab.core.step import Counts
from ilab.data import Chunk, Item, Leaf, Message, Origin, Rejected, Sample, seed_from
from ilab.errors import InputError, ServiceError
from ilab.models.cached import Cached
from ilab.models.chat import ChatModel, prompt_text
from ilab.sdg.benchmarks import BENCHMARK, Benchmark
from ilab.sdg.block import Block, Context, Row
from ilab.sdg.blocks.passage import Passage
from ilab.sdg.card import card
from ilab.sdg.decontaminate import HELD_OUT
from ilab.sdg.dedup import DEDUP
from ilab.sdg.engine import Start, run_and_close
from ilab.sdg.flow import FILES, Branch, Flow, FlowSet
from ilab.sdg.hold_out import kept_apart
from ilab.sdg.inputs import input_rows
from ilab.sdg.made import NEAR, UNANSWERABLE, Made
from ilab.sdg.sieve import SURPLUS, Limits, sieve
from ilab.sdg.trial import FIRST, Trial

ANSWER_TOKENS = 150  # of one answer, for forecasts


@dataclass(frozen=True)
class Job:
    """All that generation depends on, and what it uses.

    ``scale_factor`` is the number of samples asked for per input row (a cap under rule flows), ``held_out`` the
    items that must not become samples. ``teacher`` may be None for flows that call none; ``teacher_name`` is its
    served name. ``memo`` opens the memo of a name (``teacher``, ``rows``); ``in_flight`` does not change the
    result. ``quality`` (0 to 1) is the lowest score with which a judge lets a row pass. Pairs of a teacher's that are
    alike to at least ``near`` are near-duplicates (1: none are); ``benchmarks`` must not be taught. ``verifier`` is the
    second teacher of flows that ask one. Of what passes, ``most`` instructions are taken (None: all).
    ``teacher_family`` is the format of the teacher's prompts (empty: its server's own).
    """

    leaves: Sequence[Leaf]
    chunks: Sequence[Chunk]
    held_out: Sequence[Item]
    flow: FlowSet
    scale_factor: int
    seed: int
    memo: Callable[[str], Memo]
    emit: Emit
    stopping: Callable[[], bool]
    teacher: ChatModel | None = None
    teacher_name: str = ""
    in_flight: int = 64
    preview: Preview | None = None
    quality: float = 0.7
    verifier: ChatModel | None = None
    verifier_name: str = ""
    near: float = 1.0
    benchmarks: Sequence[Benchmark] = ()
    most: int | None = None
    teacher_family: str = ""


@dataclass(frozen=True)
class Preview:
    """A few samples to look at: so many input ``rows`` of each leaf, in at most ``calls`` teacher calls altogether.

    The calls are counted as if every answer had to be asked for as often as may be, so the limit holds whatever the
    teacher answers. A leaf that gives no sample is no error here, it is what one wanted to see.
    """

    rows: int
    calls: int | None = None


@dataclass(frozen=True)
class Generated:
    """``samples`` and ``rejected`` by leaf and in the order of the flow; ``card`` is content, ``counts``
    are not.
    """

    samples: list[Sample]
    rejected: list[Rejected]
    card: dict[str, Any]
    counts: Counts
    barren: tuple[Leaf, ...] = ()  # leaves without any sample


def generate(job: Job) -> Generated:
    """Run the job's flow over all its leaves, each of which must give a sample.

    Raises as :func:`produce` does, and ``InputError`` when a rule flow makes nothing of a leaf, ``ServiceError`` when
    none of the teacher's answers for a leaf could be used.
    """
    made = produce(job)
    check_leaves(job, made)
    return made


def check_leaves(job: Job, made: Generated) -> None:
    """Raises the error of the first leaf that gave nothing; see :func:`generate`."""
    for leaf in made.barren:
        raise _nothing(leaf, [entry for entry in made.rejected if entry.leaf == leaf.path], job)


def produce(job: Job) -> Generated:
    """Run the job's flow over all its leaves, whatever they give.

    Raises ``InputError`` when leaf and flow do not fit, ``ServiceError`` when the teacher cannot be used or the first
    input rows give nothing, ``Stopped`` when asked to stop.
    """
    _check(job)
    starts = starts_of(job.leaves, job.chunks, job.flow, kept_apart(job.chunks, job.held_out))
    if job.preview:
        starts = few(starts, job.preview, job.scale_factor, job.seed)
    rows_memo = job.memo("rows")
    asks = job.teacher is not None and job.flow.calls_teacher
    teacher = Cached(job.teacher, job.memo("teacher"), job.teacher_family) if job.teacher and asks else None
    verifier = Cached(job.verifier, job.memo("teacher")) if job.verifier else None
    asked = [one for one in (teacher, verifier) if one]
    context = Context(
        rows_memo, job.seed, job.scale_factor, teacher, job.teacher_name, job.quality, verifier, job.verifier_name
    )
    calling = [asks and any(block.calls_teacher for block in start.blocks) for start in starts]
    trial = Trial(calling, lambda refused: _hopeless(refused, job)) if job.preview is None else None
    try:
        result = asyncio.run(run_and_close(starts, context, job.in_flight, job.emit, job.stopping, trial))
    finally:
        rows_memo.flush()
    memoised = {row.id for row in result.rows if row.trace.memoised}
    made = [_made(row, job.flow.name) for row in result.rows]
    _check_ids([one.sample for one in made], job.flow)
    sieved = sieve(made, Limits(job.leaves, job.held_out, job.near, job.benchmarks, job.most))
    samples = [one.sample for one in sieved.kept]
    later = [entry for found in sieved.refused.values() for entry in found]
    rejected = sorted([*result.rejected, *later], key=lambda entry: entry.leaf)
    surplus = {entry.id for entry in sieved.refused.get(SURPLUS, ())}
    passed = [*samples, *(one.sample for one in made if one.sample.id in surplus)]
    barren = tuple(
        leaf
        for leaf in (job.leaves if job.preview is None else ())
        if not any(sample.leaf == leaf.path and _counts(sample, leaf, job) for sample in passed)
    )
    counts = {
        "accepted": len(samples),
        "rejected": len(rejected),
        "from_memo": sum(sample.id in memoised for sample in samples),
        "new": sum(sample.id not in memoised for sample in samples),
        "calls": sum(one.calls for one in asked),
        "calls_from_memo": sum(one.from_memo for one in asked),
        "tokens": sum(one.tokens for one in asked),
    }
    return Generated(samples, rejected, card(job.flow, job.leaves, sieved, result), counts, barren)


def expected(starts: Sequence[Start], scale_factor: int) -> dict[str, float]:
    """Teacher ``calls`` for these input rows, and roughly their ``tokens``.

    Every block is taken to pass on what it gets, a prompt to have a token per four characters of its template and
    of the row's longest text, an answer 150 tokens (``tokens_written``: those of the answers alone).
    """
    calls, read = 0, 0.0
    for start in starts:
        longest = max((len(value) for value in start.row.columns.values() if isinstance(value, str)), default=0)
        for block, times in _asked(start, scale_factor):
            calls += times
            read += times * (block.own_text() + longest) / 4
    written = calls * ANSWER_TOKENS
    return {"calls": calls, "tokens": round(read) + written, "tokens_written": written}


def few(starts: Sequence[Start], preview: Preview, scale_factor: int, seed: int) -> list[Start]:
    """The input rows of a preview: of each leaf those that come first in an order drawn by their ids.

    One row of every leaf is taken before the second of any, until the calls are used up.
    """
    by_leaf: dict[str, list[Start]] = {}
    for start in sorted(starts, key=lambda start: (seed_from(start.row.id, seed), start.row.id)):
        by_leaf.setdefault(start.row.leaf, []).append(start)
    taken: list[Start] = []
    left = preview.calls
    for turn in range(preview.rows):
        for _, rows in sorted(by_leaf.items()):
            if turn >= len(rows):
                continue
            most = sum(block.asks * times for block, times in _asked(rows[turn], scale_factor))
            if left is None or most <= left:
                left = None if left is None else left - most
                taken.append(rows[turn])
    chosen = {id(start) for start in taken}
    return [start for start in starts if id(start) in chosen]


def _asked(start: Start, scale_factor: int) -> Iterator[tuple[Block, int]]:
    """The blocks of a chain that ask the teacher, with how often they do for one input row."""
    rows = 1
    for block in start.blocks:
        rows *= block.copies(scale_factor)
        if block.calls_teacher:
            yield block, rows


def _check(job: Job) -> None:
    """What can be known before the first call."""
    if job.flow.calls_teacher and job.teacher is None:
        raise InputError(
            f"the flow {job.flow.name!r} asks a teacher, and there is none",
            where=job.flow.where,
            hint="add --set where.teacher.url=URL and -p sdg_teacher_model=NAME, or -p sdg_pipeline=extractive",
        )
    if job.flow.calls_teacher and not job.teacher_name:
        raise InputError(
            "the teacher's name is not given", hint="add -p sdg_teacher_model=NAME, as its server calls it"
        )


def starts_of(
    leaves: Sequence[Leaf], chunks: Sequence[Chunk], flow: FlowSet, apart: frozenset[str] = frozenset()
) -> list[Start]:
    """The input rows of all leaves by path, then by branch, then as the documents have them.

    Of the chunks in ``apart`` (``leaf#id``) a flow that trains the document's own text makes nothing else; a flow
    that does not has to teach them.

    Raises ``InputError`` for a leaf of a kind that the flow has no file for.
    """
    for leaf in leaves:
        if leaf.kind not in flow.flows:
            raise InputError(
                f"the flow {flow.name!r} has nothing for {leaf.kind} leaves",
                where=str(leaf.place),
                hint=f"add {FILES[leaf.kind]} to {flow.where}, or take another flow",
            )
    by_leaf: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        by_leaf.setdefault(chunk.leaf, []).append(chunk)
    return [
        Start(row, branch.blocks, leaf.kind)
        for leaf in sorted(leaves, key=lambda leaf: leaf.path)
        for branch in flow.flows[leaf.kind].branches
        for row in input_rows(
            branch.input, leaf, _allowed(flow.flows[leaf.kind], branch, by_leaf.get(leaf.path, []), apart)
        )
    ]


def _allowed(flow: Flow, branch: Branch, chunks: Sequence[Chunk], apart: frozenset[str]) -> Sequence[Chunk]:
    """The chunks that ``branch`` may begin with; see :func:`starts_of`."""
    if not apart or _trains_text(branch) or not any(_trains_text(other) for other in flow.branches):
        return chunks
    return [chunk for chunk in chunks if f"{chunk.leaf}#{chunk.id}" not in apart]


def _trains_text(branch: Branch) -> bool:
    return any(isinstance(block, Passage) for block in branch.blocks)


def _made(row: Row, flow: str) -> Made:
    """The sample that a row becomes, and what the filters must know of the row."""
    columns = row.columns
    return Made(
        _sample(row, flow),
        str(columns["question"]),
        columns.get("context"),
        str(columns.get("document") or ""),
        str(columns.get(UNANSWERABLE, "")).casefold() == "yes",
    )


def _sample(row: Row, flow: str) -> Sample:
    columns, trace = row.columns, row.trace
    context = columns.get("context") or None
    question = prompt_text(columns["question"], context)
    origin = Origin(
        leaf=row.leaf,
        leaf_digest=trace.leaf_digest,
        document=trace.document,
        source=trace.source,
        chunk=trace.chunk,
        page=trace.page,
        span=trace.span,
        evidence=columns.get("evidence"),
        flow=flow,
        block=trace.block,
        prompt=trace.prompt,
        teacher=trace.teacher,
        reported=trace.reported,
        sampling=trace.sampling,
        usage=trace.usage,
        verdicts=trace.verdicts,
    )
    messages = (Message(role="user", content=question), Message(role="assistant", content=columns["answer"]))
    train_on = columns.get("train_on", "assistant")
    return Sample(id=row.id, leaf=row.leaf, messages=messages, context=context, train_on=train_on, origin=origin)


def _check_ids(samples: list[Sample], flow: FlowSet) -> None:
    twice = [identity for identity, count in Counter(sample.id for sample in samples).items() if count > 1]
    if twice:
        raise InputError(
            f"two branches of the flow make rows of the same id: {twice[0]}",
            where=flow.where,
            hint="give one of their blocks a name: of its own",
        )


def _counts(sample: Sample, leaf: Leaf, job: Job) -> bool:
    """Whether a sample shows that the flow worked: where a teacher was asked, whole passages do not."""
    return sample.origin.teacher is not None or not job.flow.flows[leaf.kind].calls_teacher


def _nothing(leaf: Leaf, rejected: list[Rejected], job: Job) -> InputError | ServiceError:
    """No sample of ``leaf`` is left: by whose fault, and three of the rows that were refused."""
    where = str(leaf.place)
    if not rejected:
        return InputError(
            f"the leaf {leaf.path} gives the flow {job.flow.name!r} nothing to work on: it has no document text",
            where=where,
            hint="add a document with some paragraphs to the leaf, then run the same command again",
        )
    # Of duplicates one stays: they may be many, and are never why nothing is left.
    others = [entry for entry in rejected if entry.block not in (DEDUP, NEAR)] or rejected
    block, most = Counter(entry.block for entry in others).most_common(1)[0]
    shown = "".join(f"\n  {entry.id}: {entry.reason}{_glimpse(entry)}" for entry in others[:3])
    message = (
        f"no sample of the leaf {leaf.path} was accepted: {len(rejected)} rows were refused, "
        f"{most} of them by block {block!r}{shown}"
    )
    if job.flow.flows[leaf.kind].calls_teacher and block not in (DEDUP, HELD_OUT, BENCHMARK):
        return ServiceError(
            message,
            where=where,
            hint="take another teacher (-p sdg_teacher_model=NAME), or mend the prompts in "
            f"{job.flow.flows[leaf.kind].where}; then run the same command again: good answers are kept",
        )
    return InputError(message, where=where, hint="mend the leaf or its documents, then run the same command again")


def _hopeless(refused: list[Rejected], job: Job) -> ServiceError:
    """None of the first input rows gave a sample: which filter it was, and three of the rows."""
    block, most = Counter(entry.block for entry in refused).most_common(1)[0]
    shown = "".join(f"\n  {entry.id}: {entry.reason}{_glimpse(entry)}" for entry in refused[:3])
    return ServiceError(
        f"stopped early, because the first {FIRST} input rows gave no sample: {len(refused)} rows were refused, "
        f"{most} of them by block {block!r}{shown}",
        where=job.flow.where,
        hint="teacher and flow do not fit: take another teacher (-p sdg_teacher_model=NAME) or flow (-p sdg_pipeline="
        "simple), or try a few rows first: ilab data generate --preview 2; good answers are kept",
    )


def _glimpse(entry: Rejected) -> str:
    text = entry.row.get("raw") or entry.row.get("question") or ""
    return f" | {' '.join(str(text).split())[:120]}" if text else ""

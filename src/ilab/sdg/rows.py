"""A flow over rows of one's own: a JSON object a line in, the rows that come out of it a line each.

What is refused stands beside the output (``out.rejected.jsonl``) with the block and the reason. Every answer is in the
memo before it is used, so that the same command after an interruption asks only for what is missing. A row's id is
its ``id`` column, else a hash of what it says; ``leaf`` says which rows belong together, else all of them do.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.core.events import Emit
from ilab.core.files import write_text
from ilab.core.memo import Memo
from ilab.core.step import fingerprint
from ilab.data import short
from ilab.errors import InputError
from ilab.models.cached import Cached
from ilab.models.chat import ChatModel
from ilab.sdg.block import Context, Row
from ilab.sdg.engine import Result, Start, run_and_close
from ilab.sdg.flow import Flow, check_columns, raise_all


@dataclass(frozen=True)
class RowJob:
    """A flow, the rows that it starts from, and what it uses; see :class:`ilab.sdg.generate.Job`."""

    flow: Flow
    rows: Sequence[Row]
    scale_factor: int
    seed: int
    quality: float
    memo: Callable[[str], Memo]
    emit: Emit
    stopping: Callable[[], bool]
    teacher: ChatModel | None = None
    teacher_name: str = ""
    in_flight: int = 64
    verifier: ChatModel | None = None
    verifier_name: str = ""


def read_rows(path: Path) -> list[Row]:
    """The rows in the JSON lines of ``path``. Raises ``InputError`` with the line of what is no row."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    rows: list[Row] = []
    known: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            columns = json.loads(line)
        except ValueError as error:
            raise InputError(f"not JSON: {error}", where=where, hint="one JSON object a line") from error
        if not isinstance(columns, dict):
            raise InputError("a row is a JSON object of columns", where=where, hint='for example {"document": "…"}')
        identity = str(columns.get("id") or short(fingerprint(columns)))
        if identity in known:
            raise InputError(
                f"the row {identity} is the same as that of line {known[identity]}",
                where=where,
                hint="remove it, or give each row an id of its own",
            )
        known[identity] = number
        rows.append(Row(identity, str(columns.get("leaf") or "rows"), columns))
    if not rows:
        raise InputError("there are no rows", where=str(path), hint="one JSON object a line")
    return rows


def check_rows(flow: Flow, rows: Sequence[Row]) -> None:
    """Whether the rows have what the flow needs. Raises ``InputError`` for every block that lacks a column."""
    common = frozenset.intersection(*(frozenset(row.columns) for row in rows))
    raise_all(check_columns(flow, common))


def run_rows(job: RowJob) -> tuple[Result, dict[str, int]]:
    """Run every branch of the flow over all rows: what came of them, and the counts.

    Raises ``InputError`` when flow and rows do not fit, ``ServiceError`` when the teacher cannot be used, ``Stopped``.
    """
    check_rows(job.flow, job.rows)
    if job.flow.calls_teacher and (job.teacher is None or not job.teacher_name):
        raise InputError(
            f"the flow {job.flow.name!r} asks a teacher, and there is none",
            where=job.flow.where,
            hint="add --endpoint-url URL --model NAME",
        )
    rows_memo = job.memo("rows")
    teacher = Cached(job.teacher, job.memo("teacher")) if job.teacher and job.flow.calls_teacher else None
    verifier = Cached(job.verifier, job.memo("teacher")) if job.verifier else None
    asked = [one for one in (teacher, verifier) if one]
    context = Context(
        rows_memo, job.seed, job.scale_factor, teacher, job.teacher_name, job.quality, verifier, job.verifier_name
    )
    starts = [Start(row, branch.blocks, branch.name) for branch in job.flow.branches for row in job.rows]
    try:
        result = asyncio.run(run_and_close(starts, context, job.in_flight, job.emit, job.stopping))
    finally:
        rows_memo.flush()
    twice = [identity for identity, count in Counter(row.id for row in result.rows).items() if count > 1]
    if twice:
        raise InputError(
            f"two branches of the flow make rows of the same id: {twice[0]}",
            where=job.flow.where,
            hint="give one of their blocks a name: of its own",
        )
    counts = {
        "rows": len(result.rows),
        "rejected": len(result.rejected),
        "calls": sum(one.calls for one in asked),
        "calls_from_memo": sum(one.from_memo for one in asked),
        "tokens": sum(one.tokens for one in asked),
    }
    return result, counts


def write_rows(path: Path, result: Result) -> Path:
    """Write the rows to ``path``, the refused ones beside it; the path of the latter."""
    refused = refused_path(path)
    write_text(refused, _lines(entry.model_dump(mode="json") for entry in result.rejected))
    write_text(path, _lines({**row.columns, "id": row.id} for row in result.rows))
    return refused


def refused_path(path: Path) -> Path:
    """Where the refused rows stand: ``NAME.rejected.jsonl`` beside ``NAME.jsonl``."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.rejected.jsonl")


def _lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n" for record in records)

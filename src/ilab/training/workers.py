"""Samples to pieces, in their order, by one process or by several.

Tokenising is the only long work between the data and the first step, and rows do not depend on each other. Small sets
are done before another process has started, so only what comes after ``ALONE`` rows is spread; chunks go out and come
back in order, a bounded number at a time, so the result and the memory are the same however many work.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context, parent_process

from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.training.pieces import Cut, EncodeOptions, cut_sample
from ilab.training.records import RawSample

ALONE = 4096  # rows that the calling process does itself, at first
CHUNK = 64  # rows that go to a worker together
Numbered = tuple[int, RawSample]  # the row's place in the data, from 1

_of_worker: list[tuple[Renderer, EncodeOptions]] = []  # filled once, when a worker starts


def cut_in_order(
    samples: Iterable[RawSample], renderer: Renderer, options: EncodeOptions, workers: int = 1
) -> Iterator[tuple[RawSample, Cut]]:
    """Each sample with what it became. Raises InputError naming the row that the template refuses."""
    numbered = enumerate(samples, 1)
    for row, sample in numbered if workers < 2 else islice(numbered, ALONE):
        yield sample, _cut(row, sample, renderer, options)
    rest = _chunks(numbered)
    first = next(rest, None)
    if first is not None:
        yield from _spread(first, rest, (renderer, options), workers)


def _cut(row: int, sample: RawSample, renderer: Renderer, options: EncodeOptions) -> Cut:
    try:
        return cut_sample(sample, row, renderer, options)
    except InputError as error:
        where = sample.where or error.where
        raise InputError(f"row {row} ({sample.id}): {error.message}", where=where, hint=error.hint) from error


def _chunks(numbered: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    while chunk := list(islice(numbered, CHUNK)):
        yield chunk


def _spread(
    first: list[Numbered], rest: Iterator[list[Numbered]], means: tuple[Renderer, EncodeOptions], workers: int
) -> Iterator[tuple[RawSample, Cut]]:
    pending: deque[tuple[list[Numbered], Future[list[Cut]]]] = deque()
    # Not forked: this process may have threads of torch's.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, means)
    try:
        pending.append((first, pool.submit(_work, first)))
        while pending:
            for chunk in islice(rest, 3 * workers - len(pending)):
                pending.append((chunk, pool.submit(_work, chunk)))
            chunk, future = pending.popleft()
            yield from zip((sample for _, sample in chunk), future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _start(renderer: Renderer, options: EncodeOptions) -> None:
    """In a worker: Ctrl-C is the parent's business, and a worker does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    _of_worker.append((renderer, options))


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(chunk: Sequence[Numbered]) -> list[Cut]:
    renderer, options = _of_worker[0]
    return [_cut(row, sample, renderer, options) for row, sample in chunk]

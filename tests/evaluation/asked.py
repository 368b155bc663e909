"""A model that says what a test wants, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.evaluation.benchmarks.choices import Scorer
from ilab.models.likelihood import Likelihood, Pair
from ilab.models.renderer import Renderer

Like = Callable[[str, str], float]  # prompt and option to a log-probability


class Told:
    """Likelihoods by a rule; ``asked`` are the (prompt, option) texts so far."""

    dtype = "float32"
    context_length = 100_000

    def __init__(self, renderer: Renderer, like: Like) -> None:
        self._renderer, self._like = renderer, like
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        for index, pair in enumerate(pairs):
            context, option = (self._renderer.decode(list(ids)) for ids in (pair.context, pair.continuation))
            self.asked.append((context, option))
            yield index, Likelihood(self._like(context, option), False, len(pair.continuation))


def told(model: Path, like: Like, identity: str = "m") -> tuple[Scorer, Told]:
    renderer = Renderer.load(model)
    made = Told(renderer, like)
    return Scorer(identity, renderer, lambda: made), made


def site(folder: Path, stopping: Callable[[], bool] = lambda: False) -> Any:
    memos: dict[str, Memo] = {}
    where = SimpleNamespace(threads=1, device="cpu")
    made = SimpleNamespace(where=where, emit=Bus().for_step("evaluate"), stopping=stopping, memos=memos)
    made.memo = lambda name: memos.setdefault(name, Memo(folder / name))
    return made


def close(made: Any) -> None:
    for memo in made.memos.values():
        memo.close()

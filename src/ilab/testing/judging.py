"""A model under test and a judge at one scripted server on loopback."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.config import Endpoint
from ilab.core.events import Bus, Emit
from ilab.core.memo import Memo
from ilab.evaluation.judge import ModelJudge
from ilab.evaluation.subject import Asking, EndpointSubject
from ilab.models.openai import OpenAIModel
from ilab.testing.teacher import Faults, Teacher, serve

Answer = Callable[[list[dict[str, str]]], str]
Mark = Callable[[str], str]


def part(prompt: str, name: str) -> str:
    """A part of the material in a judge's prompt; empty where there is none."""
    found = re.search(rf"=== begin {name} (\w+) ===\n(.*?)\n=== end {name} \1 ===", prompt, re.DOTALL)
    return found[2] if found else ""


def by_length(prompt: str) -> str:
    """A mark from 1 to 5 by the words of the answer."""
    return f'Well.\n{{"mark": {min(5, len(part(prompt, "answer").split()))}}}'


@dataclass
class Bench:
    """``subject`` makes a model of that name, ``judge`` is asked for marks; ``asked`` are the requests by model."""

    server: Teacher
    memos: dict[str, Memo]
    emit: Emit
    stopping: Callable[[], bool]

    def subject(self, name: str = "student") -> EndpointSubject:
        asking = Asking(self.memos["answers"], self.emit, self.stopping)
        return EndpointSubject(name, self._model(), asking, served=name, identity=name, at_once=4)

    @property
    def judge(self) -> ModelJudge:
        return ModelJudge(
            "judge", self._model(), self.memos["judge"], emit=self.emit, stopping=self.stopping, at_once=4
        )

    def asked(self, model: str) -> list[list[dict[str, str]]]:
        return [call["messages"] for call in self.server.calls if call["model"] == model]

    def _model(self) -> OpenAIModel:
        return OpenAIModel(Endpoint(url=self.server.url, timeout=0.5), tries=2, backoff=0.01)


@contextmanager
def bench(
    folder: Path,
    answer: Answer,
    mark: Mark = by_length,
    *,
    faults: Faults | None = None,
    stopping: Callable[[], bool] = lambda: False,
    emit: Emit | None = None,
) -> Iterator[Bench]:
    def script(body: dict[str, Any]) -> str:
        return mark(body["messages"][-1]["content"]) if body["model"] == "judge" else answer(body["messages"])

    models = ("student", "base", "candidate", "judge")
    memos = {name: Memo(folder / "memo" / name) for name in ("answers", "judge")}
    with serve(script, models=models, faults=faults) as server:
        try:
            yield Bench(server, memos, emit or Bus().for_step("evaluate"), stopping)
        finally:
            for memo in memos.values():
                memo.close()

"""Which graph trains: the project's own steps, in the order that a strategy wants, on its own data or on given files.

    (none)            as the project's pipeline has it
    single            one run on one file
    lab-multiphase    knowledge, then skills from the checkpoint that was chosen of it (arXiv 2403.01081)
    lab-skills-only   the second phase alone, from the base
    stacked           the data of both phases in one run (arXiv 2412.13337: as good, and simpler)

A graph is cut out of the project's pipeline, so that settings, store and keys are those of a build. Steps that are
wired differently have names of their own: what a build made last stays what it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ilab.core.pipeline import Pipeline, sources
from ilab.errors import InputError

Strategy = Literal["single", "lab-multiphase", "lab-skills-only", "stacked"]
Steps = dict[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Phase:
    """The names of one training step of a pipeline and of the steps around it; empty where there is none."""

    train: str
    data: str
    base: str
    evaluate: str = ""
    select: str = ""


@dataclass(frozen=True)
class Training:
    """What is to be trained. ``files`` are absolute paths, one for each dataset that the strategy takes.

    ``scored``: the project's held-out questions choose the checkpoint, where data is given by file. ``questions`` is a
    file of them that base and result are asked at the end.
    """

    strategy: Strategy | None = None
    files: tuple[str, ...] = ()
    scored: bool = False
    questions: str = ""

    def cut(self, pipeline: Pipeline) -> Pipeline:
        """The steps of ``pipeline`` that this takes, wired as it wants.

        Raises ``InputError`` for a pipeline that has no such training.
        """
        found = phases(pipeline)
        steps: Steps = dict(pipeline.steps)
        if self.strategy == "lab-multiphase" or self.strategy is None:
            if self.strategy and len(found) < 2:
                raise InputError("this pipeline trains in one phase", where=pipeline.path, hint="--strategy stacked")
            last = self._in_phases(steps, found)
        elif self.strategy == "lab-skills-only":
            data = self._data(steps, found, len(found) - 1, 0)
            last = self._run(steps, found[-1], (data, found[0].base), "")
        else:
            last = self._run(steps, found[0], (self._stacked(steps, found), found[0].base), "")
        if self.questions:
            steps["questions"] = {"step": "rows", "data": self.questions}
            models = {"before": found[0].base, "after": last}
            steps["answers"] = {"step": "answers", "from": {"models": models, "questions": "questions"}}
        return replace(pipeline, steps=needed(steps, ["answers"] if self.questions else [last]))

    def values(self) -> dict[str, Any]:
        """Nothing besides the parameters."""
        return {}

    def _in_phases(self, steps: Steps, found: list[Phase]) -> str:
        """The last step of a training in all phases of the pipeline, or the first and the last with files."""
        if not self.files:
            return found[-1].select or found[-1].train
        base = found[0].base
        for number, phase in enumerate((found[0], found[-1])):
            data = self._data(steps, found, number, number)
            base = self._run(steps, phase, (data, base), f"-{number + 1}")
        return base

    def _data(self, steps: Steps, found: list[Phase], phase: int, file: int) -> str:
        """The name of the step that gives a phase's data: the given file, or the project's mix with what is left."""
        name = f"data-{phase + 1}" if len(self.files) != 1 else "data"
        if self.files:
            steps[name] = {"step": "rows", "data": self.files[file]}
            return name
        # A mix may look at what earlier phases trained and measured; where they do not take place, it cannot.
        mix = found[phase].data
        gone = {one.train for one in found} | ({one.data for one in found} if self.strategy == "stacked" else set())
        wiring = dict(steps[mix].get("from") or {})
        kept = {
            given: source for given, source in wiring.items() if not gone & set(needed(steps, sources({"": source})))
        }
        if kept == wiring:
            return mix
        steps[name] = {**steps[mix], "from": kept}
        return name

    def _stacked(self, steps: Steps, found: list[Phase]) -> str:
        if len(self.files) == 1:
            return self._data(steps, found, 0, 0)
        count = len(self.files) or len(found)
        names = [self._data(steps, found, number, number) for number in range(count)]
        steps["data"] = {"step": "stack", "from": {"datasets": {name: name for name in names}}}
        return "data"

    def _run(self, steps: Steps, phase: Phase, inputs: tuple[str, str], suffix: str) -> str:
        """Add a training on (data, base), and what chooses its checkpoint. Returns the name of the choosing step."""
        train, evaluate, select = f"train{suffix}", f"evaluate{suffix}", f"select{suffix}"
        data, base = inputs
        own = dict(steps[phase.select]) if phase.select else {"step": "select"}
        wiring = {"candidates": train}
        if self.scored or not self.files:
            if not phase.evaluate and self.scored:
                raise InputError("this pipeline has no evaluation that could choose", hint="leave --select out")
            if phase.evaluate:
                scoring = steps[phase.evaluate]
                steps[evaluate] = {**scoring, "from": {**scoring["from"], "model": train}}
                wiring["evaluation"] = evaluate
        steps[train] = {**steps[phase.train], "from": {"dataset": data, "base": base}}
        steps[select] = {**own, "from": wiring}
        return select


@dataclass(frozen=True)
class Asking:
    """Two models, by locators, and a file of questions to ask them: no part of the project's pipeline but its name."""

    before: str
    after: str
    questions: str
    max_tokens: int

    def cut(self, pipeline: Pipeline) -> Pipeline:
        answers = {"step": "answers", "max_tokens": self.max_tokens}
        wiring = {"models": {"before": "before", "after": "after"}, "questions": "questions"}
        steps: Steps = {
            "before": {"step": "base", "model": self.before},
            "after": {"step": "base", "model": self.after},
            "questions": {"step": "rows", "data": self.questions},
            "answers": {**answers, "from": wiring},
        }
        return replace(pipeline, steps=steps)

    def values(self) -> dict[str, Any]:
        """Nothing besides the parameters."""
        return {}


def phases(pipeline: Pipeline) -> list[Phase]:
    """The training steps of a pipeline, in the order of the file. Raises ``InputError`` where there is none."""
    found = []
    for name, body in pipeline.steps.items():
        if body.get("step") == "train":
            wiring = body.get("from") or {}
            select = _reader(pipeline, "select", "candidates", name)
            evaluate = (pipeline.steps[select].get("from") or {}).get("evaluation", "") if select else ""
            found.append(Phase(name, wiring.get("dataset", ""), wiring.get("base", ""), evaluate, select))
    if not found:
        raise InputError("the pipeline has no step of type 'train'", where=pipeline.path)
    return found


def needed(steps: Mapping[str, Mapping[str, Any]], wanted: Iterable[str]) -> Steps:
    """``wanted`` and all that they read from, in the order of ``steps``."""
    open_, kept = list(wanted), set(wanted)
    while open_:
        new = [name for name in sources(steps.get(open_.pop(), {}).get("from") or {}) if name not in kept]
        kept.update(new)
        open_ += new
    return {name: body for name, body in steps.items() if name in kept}


def _reader(pipeline: Pipeline, type_: str, given: str, source: str) -> str:
    """The first step of a type whose input ``given`` is wired to ``source``."""
    for name, body in pipeline.steps.items():
        if body.get("step") == type_ and (body.get("from") or {}).get(given) == source:
            return name
    return ""

"""Steps that know nothing of language models, to test the engine with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from ilab.core.files import write_text
from ilab.core.step import Artifact, Counts, Found, Resolve, Site, Step, fingerprint
from ilab.errors import InputError

CALLS: list[str] = []  # types of the steps that ran


class Text(Artifact):
    kind: ClassVar[str] = "text"

    def write(self, text: str) -> None:
        write_text(self.path / "text.txt", text)

    def read(self) -> str:
        return (self.path / "text.txt").read_text()


class Number(Artifact):
    kind: ClassVar[str] = "number"


class Load(Step):
    type: ClassVar[str] = "load"
    source: Annotated[str, Resolve("file")]

    def run(self, *, out: Text, site: Site) -> Counts:
        CALLS.append("load")
        out.write(Path(site.locate(self.source).locator).read_text())
        return {"bytes": 1}


class Strip(Step):
    """Forgets comments: other inputs, same contents."""

    type: ClassVar[str] = "strip"
    marker: str = "#"

    def run(self, text: Text, *, out: Text, site: Site) -> Counts:
        CALLS.append("strip")
        lines = text.read().splitlines(keepends=True)
        out.write("".join(line for line in lines if not line.startswith(self.marker)))
        return {}


class Repeat(Step):
    type: ClassVar[str] = "repeat"
    times: int = 2

    def run(self, text: Text, *, out: Text, site: Site) -> Counts:
        CALLS.append("repeat")
        if self.times > 100:
            raise InputError("too often", where="times", hint="fewer")
        out.write(text.read() * self.times)
        return {"times": self.times}


class Join(Step):
    type: ClassVar[str] = "join"

    def run(self, parts: Mapping[str, Text], extra: Text | None = None, *, out: Text, site: Site) -> Counts:
        CALLS.append("join")
        texts = [f"{name}={part.read()}" for name, part in sorted(parts.items())]
        out.write("".join(texts) + (extra.read() if extra else ""))
        return {"parts": len(parts)}


TYPES: dict[str, type[Step]] = {step.type: step for step in (Load, Strip, Repeat, Join)}


def resolvers() -> dict[str, Any]:
    return {"file": lambda locator: Found(fingerprint(Path(locator).read_text()), locator)}

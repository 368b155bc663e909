"""One teacher call per row: render a prompt, ask, read the answer by tags, ask again when it cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from ilab.data import Message, digest_text, seed_from, short
from ilab.models.chat import SEED_BITS, Reply, Request, Sampling
from ilab.sdg.block import Block, Context, Reject, Row, Trace
from ilab.sdg.parse import parse_tags
from ilab.sdg.prompt import render, variables

ASKS = 3  # how often an unreadable or cut-off answer is asked for, with another seed each time


class Llm(Block):
    """Adds a column per tag; an answer with several complete records gives several rows, ``<name>-<n>``.

    ``prompt`` is the template of the user message, ``system`` of the system message. ``tags`` maps columns to the
    tags that the prompt asks for; without any, the whole text becomes the column ``output``. Above temperature 0
    the seed of a call derives from the row's id; at 0 no seed is sent and equal calls are one call.
    """

    type: ClassVar[str] = "llm"
    calls_teacher: ClassVar[bool] = True
    asks: ClassVar[int] = ASKS
    files: ClassVar[tuple[str, ...]] = ("prompt",)

    prompt: str
    system: str = ""
    tags: Mapping[str, str] = Field(default_factory=dict)
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    max_tokens: int = Field(2048, gt=0)
    top_p: float | None = Field(None, gt=0.0, le=1.0)
    stop: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _tags_differ(self) -> Self:
        if len({tag.lower() for tag in self.tags.values()}) < len(self.tags):
            raise ValueError("two columns are read from the same tag")
        return self

    def needs(self) -> frozenset[str]:
        return variables(self.prompt, self.name) | variables(self.system, self.name)

    def adds(self) -> frozenset[str]:
        return frozenset(self.tags) or frozenset({"output"})

    async def __call__(self, row: Row, context: Context) -> list[Row]:
        messages = [Message(role="user", content=render(self.prompt, row.columns, self.name))]
        if self.system:
            messages.insert(0, Message(role="system", content=render(self.system, row.columns, self.name)))
        trace, refused = row.trace, Reject("no answer")
        for ask in range(ASKS):
            sampling = self._sampling(row, context, ask)
            reply = await self._ask(Request(context.model, tuple(messages), sampling), context)
            trace = self._traced(trace, context, sampling, reply)
            records = self._read(reply)
            if records:
                return [row.child(f"{self.name}-{number}", record, trace) for number, record in enumerate(records, 1)]
            cut = reply.finish_reason == "length"
            refused = Reject(
                "the answer was cut off" if cut else "the answer cannot be read",
                f"asked {ask + 1} times; raise max_tokens" if cut else f"asked {ask + 1} times for {self._wanted()}",
                raw=reply.text,
            )
        raise refused

    async def _ask(self, request: Request, context: Context) -> Reply:
        if context.teacher is None:
            raise AssertionError("a flow that calls a teacher was started without one")
        return await context.teacher.complete(request)

    def _sampling(self, row: Row, context: Context, ask: int) -> Sampling:
        """The first ask at temperature 0 is greedy; asking again needs a seed and some temperature to differ."""
        seed = seed_from(f"{row.id}/{self.name}?{ask}", context.seed) % 2**SEED_BITS
        greedy = self.temperature == 0 and ask == 0
        return Sampling(
            temperature=self.temperature or (0.0 if greedy else 0.3),
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            seed=None if greedy else seed,
            stop=self.stop,
        )

    def _read(self, reply: Reply) -> list[dict[str, str]]:
        truncated = reply.finish_reason == "length"
        if not self.tags:
            text = reply.text.strip()
            return [{"output": text}] if text and not truncated else []
        columns = {tag.lower(): column for column, tag in self.tags.items()}
        records = parse_tags(reply.text, list(columns), truncated=truncated)
        return [{columns[tag]: value for tag, value in record.items()} for record in records]

    def _wanted(self) -> str:
        return ", ".join(f"[{tag}]" for tag in self.tags.values()) or "any text"

    def _traced(self, trace: Trace, context: Context, sampling: Sampling, reply: Reply) -> Trace:
        usage = dict(trace.usage or {})
        for name, tokens in reply.usage.items():
            usage[name] = usage.get(name, 0) + tokens
        trace = replace(trace, usage=usage or None, memoised=trace.memoised and reply.cached)
        if self.adds() & {"answer", "output"}:
            trace = replace(
                trace,
                block=self.name,
                prompt=short(digest_text(f"{self.system}\0{self.prompt}")),
                teacher=context.model,
                reported=reply.reported or None,
                sampling=sampling.fields(),
            )
        return trace

"""What all blocks that ask the teacher have in common: how an answer is drawn, read, asked for again, and traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from ilab.data import Message, digest_text, seed_from, short
from ilab.errors import InputError
from ilab.models.ability import Ability
from ilab.models.cached import Cached
from ilab.models.chat import JSON_OBJECT, SEED_BITS, Reply, Request, Sampling, json_schema
from ilab.models.window import TooLong
from ilab.sdg.answer import AnswerForm, Record
from ilab.sdg.block import Block, Context, Reject, Row, Trace, resolve_count
from ilab.sdg.prompt import render, variables

ASKS = 3  # how often an unreadable or cut-off answer is asked for, with another seed each time
TOO_LONG = "the prompt is too long for the model"  # as rejected rows have it
ANSWERS = frozenset({"answer", "output", "response"})  # the columns whose writer a sample names as its origin


class AskingBlock(AnswerForm, Block):
    """Above temperature 0 the seed of a call derives from the row's id; at 0 none is sent and equal calls are one.

    ``seed`` replaces the run's seed in this, ``model`` the run's teacher by another model that its server serves.
    ``answer_schema`` holds the answer to a JSON schema, an empty one to any JSON, and ``choices`` to one of these
    texts, where the endpoint can; it is read in the same way where it cannot.
    """

    version: ClassVar[int] = 2  # since an answer that was cut off is asked for again and the fullest counts
    calls_teacher: ClassVar[bool] = True
    asks: ClassVar[int] = ASKS

    temperature: float = Field(0.0, ge=0.0, le=2.0)
    max_tokens: int = Field(2048, gt=0)
    top_p: float | None = Field(None, gt=0.0, le=1.0)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    model: str | None = None
    answer_schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] | None = Field(None, min_length=2)

    @model_validator(mode="after")
    def _held_to_one_form(self) -> Self:
        if self.choices and self.answer_schema is not None:
            raise ValueError("an answer is held to a schema or to choices, not to both")
        return self

    def abilities(self, scale: int) -> frozenset[Ability]:
        if self.answer_schema is not None:
            return frozenset({"json_schema" if self.answer_schema else "json_object"})
        return frozenset({"choice"} if self.choices else ())

    def adds(self) -> frozenset[str]:
        return self.read_columns()

    def read(self, reply: Reply) -> list[Record]:
        """The usable records of an answer; without any it is asked for again."""
        return self.records(reply.text, truncated=reply.finish_reason == "length")

    def sampling(self, row: Row, context: Context, ask: int) -> Sampling:
        """The first ask at temperature 0 is greedy; asking again needs a seed and some temperature to differ."""
        run = context.seed if self.seed is None else self.seed
        greedy = self.temperature == 0 and ask == 0
        return Sampling(
            temperature=self.temperature or (0.0 if greedy else 0.3),
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            seed=None if greedy else seed_from(f"{row.id}/{self.name}?{ask}", run) % 2**SEED_BITS,
            stop=self.stop,
            response_format=self._response_format(),
            choices=self.choices or (),
        )

    def endpoint(self, context: Context) -> tuple[Cached, str]:
        """Who is asked, and by which served name."""
        if context.teacher is None:
            raise AssertionError("a flow that calls a teacher was started without one")
        return context.teacher, self.model or context.model

    def request(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Request:
        """What is sent."""
        return Request(model, tuple(messages), sampling)

    async def ask(
        self, row: Row, messages: Sequence[Message], context: Context, prompt: str
    ) -> tuple[list[Record], Trace]:
        """At least one record of an answer to ``messages``, and the row's trace with what that took.

        An answer that was cut off is asked for again unless it holds all the records that the block keeps; the fullest
        one counts. ``prompt`` is the text of the templates, for the provenance. Raises :class:`Reject` with the raw
        answer when none of ``ASKS`` answers could be read, and for a prompt that does not fit into the model's context.
        """
        answerer, model = self.endpoint(context)
        trace, refused = row.trace, Reject("no answer")
        wanted = resolve_count(self.at_most, context.scale) if self.at_most else None
        fullest: tuple[list[Record], Sampling, Reply] | None = None
        for ask in range(ASKS):
            sampling = self.sampling(row, context, ask)
            try:
                reply = await answerer.complete(self.request(model, messages, sampling))
            except TooLong as error:
                raise Reject(TOO_LONG, error.message) from error
            trace = self._traced(trace, reply)
            records = self.read(reply)
            cut = reply.finish_reason == "length"
            if records and (fullest is None or len(records) > len(fullest[0])):
                fullest = records, sampling, reply
            if records and (not cut or (wanted is not None and len(records) >= wanted)):
                break
            refused = Reject(
                "the answer was cut off" if cut else "the answer cannot be read",
                f"asked {ask + 1} times; raise max_tokens" if cut else f"asked {ask + 1} times for {self.wanted()}",
                raw=reply.text,
            )
        if fullest is None:
            raise refused
        records, sampling, reply = fullest
        if self._is_origin(row):
            trace = self._written(trace, model, sampling, reply, prompt)
        return records, trace

    def _response_format(self) -> Mapping[str, Any] | None:
        if self.answer_schema is None:
            return None
        return json_schema("answer", self.answer_schema) if self.answer_schema else JSON_OBJECT

    def children(self, row: Row, records: Sequence[Record], trace: Trace) -> list[Row]:
        """A row for each record, ``<name>-<n>``."""
        return [row.child(f"{self.name}-{number}", record, trace) for number, record in enumerate(records, 1)]

    def _is_origin(self, row: Row) -> bool:
        """Whether what it writes is the row's answer, or may become it where there is none yet (a summary)."""
        return bool(self.adds() & ANSWERS or (self.adds() and not ANSWERS & set(row.columns)))

    def _traced(self, trace: Trace, reply: Reply) -> Trace:
        usage = dict(trace.usage or {})
        for name, tokens in reply.usage.items():
            usage[name] = usage.get(name, 0) + tokens
        return replace(trace, usage=usage or None, memoised=trace.memoised and reply.cached)

    def _written(self, trace: Trace, model: str, sampling: Sampling, reply: Reply, prompt: str) -> Trace:
        """The trace of a row whose answer this reply is."""
        return replace(
            trace,
            block=self.name,
            prompt=short(digest_text(prompt)),
            teacher=model,
            reported=reply.reported or None,
            sampling=sampling.fields(),
        )


class PromptingBlock(AskingBlock):
    """A block that sends a rendered prompt: ``prompt`` is the template of the user message, ``system`` of the system
    message. With ``plain`` the prompt is sent as a text to go on with, which is how a base model is asked.
    """

    files: ClassVar[tuple[str, ...]] = ("prompt",)

    prompt: str
    system: str = ""
    plain: bool | None = None

    @model_validator(mode="after")
    def _plain_has_no_system(self) -> Self:
        if self.plain and self.system:
            raise ValueError("a plain prompt has no system message")
        return self

    def abilities(self, scale: int) -> frozenset[Ability]:
        return super().abilities(scale) | frozenset({"completions"} if self.plain else ())

    def request(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Request:
        if self.plain:
            return Request(model, (), sampling, prompt=messages[0].content)
        return super().request(model, messages, sampling)

    def needs(self) -> frozenset[str]:
        return variables(self.prompt, self.name) | variables(self.system, self.name)

    async def prompted(self, row: Row, context: Context) -> tuple[list[Record], Trace]:
        """The records of the answer to the rendered prompt, and the trace."""
        messages = chat(self.prompt, self.system, row.columns, self.name)
        return await self.ask(row, messages, context, f"{self.system}\0{self.prompt}")


def chat(prompt: str, system: str, columns: Mapping[str, Any], name: str) -> list[Message]:
    """The two templates filled in, as messages. Raises :class:`Reject` for a row that they cannot be filled with."""
    messages = [Message(role="user", content=filled(prompt, columns, name))]
    if system:
        messages.insert(0, Message(role="system", content=filled(system, columns, name)))
    return messages


def filled(template: str, columns: Mapping[str, Any], name: str) -> str:
    """``template`` with ``columns``. What fails for one row is that row's fault: raises :class:`Reject`."""
    try:
        return render(template, columns, name)
    except InputError as error:
        raise Reject("the prompt cannot be filled in", error.message) from error

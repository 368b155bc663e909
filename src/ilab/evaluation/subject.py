"""The model under test: it gets conversations and gives answers, in this process or at an endpoint.

An answer is kept by the contents of the model, the conversation and how it was drawn, so a kill repeats only what was
under way, and a model that was asked before is not asked again whatever it is called now. Of a model at an endpoint
nobody sees the contents: unless whoever serves it gives a digest, it is known by its address and name. A conversation
that the model cannot answer (too long, refused, failed) is None: unscored, and not kept, so a later run asks again.
Of a folder the reason is told too (:meth:`LocalSubject.asked`), for whoever reads the answers one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ilab.core.events import Emit
from ilab.core.memo import Memo
from ilab.core.step import Site, fingerprint
from ilab.data import Message, digest_text, seed_from
from ilab.errors import ServiceError, Stopped
from ilab.evaluation.concurrently import each, tell_outages

if TYPE_CHECKING:
    from ilab.config import Endpoint
    from ilab.models.chat import ChatModel

ASKING = 1  # raised when the same conversation may get another answer for reasons of ours
AT_ONCE = 64

Conversation = Sequence[Message]


class Subject(Protocol):
    """A model under test. ``name`` is what results call it."""

    @property
    def name(self) -> str: ...

    def answer(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[str | None]:
        """The assistant's next turn in each conversation, in order; None where there is none.

        Above temperature 0 each conversation has a seed of its own, made of its text and ``seed``. Raises
        ``Stopped`` when asked to stop, ``ServiceError`` when no further question can succeed.
        """


@dataclass(frozen=True)
class Asking:
    """What a subject needs besides its model: the memo ``answers`` of the site, where to tell, whether to stop."""

    memo: Memo
    emit: Emit
    stopping: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Answered:
    """An answer, or None and ``why`` there is none."""

    text: str | None
    why: str = ""

    @property
    def shown(self) -> str:
        """The answer, or the reason in its place."""
        return f"(not asked: {self.why})" if self.text is None else self.text


@dataclass(frozen=True)
class _Question:
    """One conversation and how its answer is drawn."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int

    def key(self, model: str) -> str:
        fields = [message.model_dump() for message in self.messages]
        return fingerprint("answer", ASKING, model, fields, self.max_tokens, self.temperature, self.seed)


class LocalSubject:
    """A Hugging Face folder, loaded when the first answer is not known. Answers one by one."""

    def __init__(self, name: str, folder: Path, asking: Asking, *, device: str = "auto", threads: int = 1) -> None:
        self.name = name
        self._folder = folder
        self._asking = asking
        self._device = device
        self._threads = threads

    def answer(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[str | None]:
        """See :meth:`Subject.answer`."""
        found = self.asked(conversations, max_tokens=max_tokens, temperature=temperature, seed=seed)
        return [one.text for one in found]

    def asked(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Answered]:
        """As :meth:`answer`, with the reason where there is none."""
        memo, answers = self._asking.memo, list[Answered]()
        for question in _questions(conversations, max_tokens, temperature, seed):
            key = question.key(self._digest)
            known = memo.get(key)
            answer = Answered(known)
            if known is None:
                if self._asking.stopping():
                    raise Stopped("asking stopped", hint="the answers so far are kept; run the same command to go on")
                answer = self._generate(question)
                if answer.text is not None:
                    memo.put(key, answer.text)
            answers.append(answer)
            _tell(self._asking.emit, self.name, len(answers), len(conversations), answer.text)
        memo.flush()
        return answers

    @cached_property
    def _digest(self) -> str:
        from ilab.core.store import digest_tree

        return digest_tree(self._folder)

    @cached_property
    def _model(self) -> Any:
        from ilab.models.local import LocalModel

        return LocalModel.load(self._folder, self._device, self._threads)

    def _generate(self, question: _Question) -> Answered:
        from ilab.models.local import Answer, ContextError, DivergedError, Sampling

        sampling = Sampling(question.max_tokens, question.temperature, seed=question.seed)
        try:
            return Answered("".join(Answer.to(self._model, question.messages, sampling)).strip())
        except (ContextError, DivergedError) as error:
            return Answered(None, error.message)


def local_subject(name: str, folder: Path, site: Site) -> LocalSubject:
    """The model in ``folder``, on the site's device, with its memo ``answers``."""
    asking = Asking(site.memo("answers"), site.emit, site.stopping)
    return LocalSubject(name, folder, asking, device=site.where.device, threads=site.where.threads)


class EndpointSubject:
    """A model behind a chat protocol. ``identity`` is the digest of its contents, or the next best thing."""

    def __init__(
        self, name: str, model: ChatModel, asking: Asking, *, served: str, identity: str, at_once: int = AT_ONCE
    ) -> None:
        self.name = name
        self._model = model
        self._asking = asking
        self._served = served
        self._identity = identity
        self._at_once = at_once

    def answer(
        self, conversations: Sequence[Conversation], *, max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[str | None]:
        """See :meth:`Subject.answer`."""
        questions = list(_questions(conversations, max_tokens, temperature, seed))

        def done(count: int, latest: str | None) -> None:
            _tell(self._asking.emit, self.name, count, len(questions), latest)

        async def run() -> list[str | None]:
            try:
                stopping, pulse = self._asking.stopping, tell_outages(self.name, self._model, self._asking.emit)
                at_once = self._at_once
                return await each(questions, self._ask, at_once=at_once, done=done, stopping=stopping, pulse=pulse)
            finally:
                self._asking.memo.flush()
                await self._model.close()

        return asyncio.run(run())

    async def _ask(self, question: _Question) -> str | None:
        from ilab.models.chat import SEED_BITS, Refused, Request, Sampling

        key = question.key(self._identity)
        known = self._asking.memo.get(key)
        if known is not None:
            return str(known)
        seed = question.seed % 2**SEED_BITS if question.temperature else None
        sampling = Sampling(question.temperature, question.max_tokens, seed=seed)
        try:
            reply = await self._model.complete(Request(self._served, question.messages, sampling))
        except ServiceError as error:
            if error.retryable or isinstance(error, Refused):
                return None
            raise
        answer = reply.text.strip()
        self._asking.memo.put(key, answer)
        return answer


def endpoint_subject(
    name: str, endpoint: Endpoint, asking: Asking, *, served: str = "", digest: str = ""
) -> EndpointSubject:
    """The model that ``endpoint`` serves as ``served`` (``name`` if empty). Nothing is sent yet.

    ``digest`` is that of its weights, where the caller serves it himself.
    """
    from ilab.models.openai import OpenAIModel

    model, served = OpenAIModel(endpoint, in_flight=AT_ONCE), served or name
    identity = digest or fingerprint("served", endpoint.url.rstrip("/"), served)
    at_once = endpoint.in_flight or AT_ONCE
    return EndpointSubject(name, model, asking, served=served, identity=identity, at_once=at_once)


def _questions(
    conversations: Sequence[Conversation], max_tokens: int, temperature: float, seed: int
) -> list[_Question]:
    """Seeds come of the text, so neither order nor number of the conversations matters; none at temperature 0."""
    found = []
    for conversation in conversations:
        text = digest_text("\0".join(f"{turn.role}\0{turn.content}" for turn in conversation))
        drawn = seed_from(text, seed) if temperature else 0
        found.append(_Question(tuple(conversation), max_tokens, temperature, drawn))
    return found


def _tell(emit: Emit, name: str, done: int, total: int, answer: str | None) -> None:
    shown = "no answer" if answer is None else " ".join(answer.split())
    emit.progress(done, total, "answers", note=f"{name}: {shown}")

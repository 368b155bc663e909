"""Who answers: a model in this process. A server is :class:`ilab.chat.served.ServedTalker`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ilab.data import Message, seed_from

if TYPE_CHECKING:
    from ilab.models.local import LocalModel, Sampling

SMALL = 1024  # tokens of a context that is too short for a conversation, see :func:`memory_of`


class Talker(Protocol):
    """Something that continues a conversation."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def window(self) -> int | None:
        """Tokens that a prompt and its answer may have together; None where nobody tells."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """The longest answer."""
        ...

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of ``messages`` as a prompt: as the model counts, or the best estimate."""
        ...

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """The answer's text, piece by piece. Raises ``TooLong`` where the prompt turns out not to fit."""
        ...


def memory_of(window: int | None) -> int | None:
    """How many earlier exchanges go along with a question where nobody says: all that fit (None), or none to a
    model of a very short context, which was taught documents one question at a time."""
    return 0 if window is not None and window <= SMALL else None


class LocalTalker:
    """A model in this process. Above temperature 0 each answer is drawn with a seed of its own, by its number."""

    def __init__(self, model: LocalModel, sampling: Sampling, name: str = "model") -> None:
        self.model, self.sampling, self.name = model, sampling, name
        self._answers = 0

    @property
    def window(self) -> int | None:
        return self.model.context_length

    @property
    def max_tokens(self) -> int | None:
        return self.sampling.max_tokens

    def count(self, messages: Sequence[Message]) -> int:
        """Exactly, by the model's own template and tokenizer."""
        return len(self.model.renderer.prompt_ids(messages))

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        from ilab.models.local import Answer

        self._answers += 1
        seed = seed_from(f"answer {self._answers}", self.sampling.seed)
        return iter(Answer.to(self.model, messages, replace(self.sampling, seed=seed)))

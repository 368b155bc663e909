"""Text from a model in this process: load, generate token by token, decode as it comes.

The loop is small and its own, so that nothing in a model's ``generation_config.json`` changes an answer: greedy at
temperature 0, otherwise softmax sampling from the nucleus, seeded, on the CPU, so that equal logits give equal
text on every device. Keys and values of earlier tokens are cached. Weights are read from safetensors only, and
code that comes with a model is never run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from ilab.errors import InputError, SetupError
from ilab.models.device import pick_device
from ilab.models.renderer import Messages, Renderer
from ilab.models.weights import BUILDING, load_weights

FinishReason = Literal["stop", "length"]
COLDEST = 1e-4  # below this temperature the likeliest token is all there is, and dividing would overflow
UNFINISHED = "\ufffd"  # what decoding shows for half a character


class ContextError(InputError):
    """The conversation is longer than the model can read."""


class DivergedError(InputError):
    """The model computes no numbers."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is chosen. ``max_tokens`` None means as many as the context holds; ``stop`` ends an answer
    before one of these texts. ``seed`` matters above temperature 0 only."""

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


class Watcher(Protocol):
    """Sees every token of an answer before it is given out, the one that ends it too, and may forbid it."""

    def allows(self, token: int) -> bool:
        """Whether ``token`` may come next; where not, the next best is asked about."""
        ...

    def chose(self, logits: torch.Tensor, token: int) -> None:
        """``token`` comes next; ``logits`` are the model's own, (vocabulary,) in float32."""
        ...


class LocalModel:
    """A causal language model with its renderer. One caller at a time."""

    def __init__(self, model: Any, renderer: Renderer, device: str) -> None:
        self.renderer = renderer
        self.device = device
        length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(length, int):
            raise InputError("the model's config.json does not say how long its context is (max_position_embeddings)")
        self.context_length = length
        self._model = model
        # Models that can give logits of the last position alone spare a prompt-by-vocabulary matrix.
        last_only = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._options = {"use_cache": True, **({"logits_to_keep": 1} if last_only else {})}

    @classmethod
    def load(cls, model_dir: Path, device: str = "auto", threads: int = 1) -> LocalModel:
        """Load a Hugging Face directory. ``device`` is auto, cpu, cuda or mps; ``threads`` holds on the CPU.

        Raises ``InputError`` where the folder holds no model that can be loaded safely, ``SetupError`` for a
        device that is not there.
        """
        chosen = pick_device(device)
        model = load_weights(model_dir, "auto", chosen)
        torch.set_num_threads(threads)
        return cls(model, Renderer.load(model_dir), chosen)

    def room(self, prompt: int, max_tokens: int | None) -> int:
        """Tokens that an answer to a prompt of ``prompt`` tokens may have. Raises ``ContextError`` where none."""
        return room(self.context_length, prompt, max_tokens)

    def write(self, prompt_ids: Sequence[int], max_tokens: int) -> str:
        """The greedy answer, up to the model's stop token. Raises as :meth:`generate`."""
        return self.renderer.decode(list(self.generate(prompt_ids, max_tokens, stop_ids=self.renderer.stop_ids)))

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop_ids: frozenset[int] = frozenset(),
        watcher: Watcher | None = None,
    ) -> Generator[int, None, None]:
        """The answer's token ids, one by one, without the stop token. An answer ends where the context is full.

        A ``watcher`` that allows nothing at all ends it too.
        """
        with BUILDING:
            from transformers import DynamicCache

        room = self.room(len(prompt_ids), max_tokens)
        random = torch.Generator().manual_seed(seed % (1 << 63))
        cache = DynamicCache(config=self._model.config)
        fed = list(prompt_ids)
        for _ in range(room):
            logits = self._logits(fed, cache)
            token = _watched(logits, watcher, lambda rest: _choose(rest, temperature, top_p, random))
            if token is None or token in stop_ids:
                return
            yield token
            fed = [token]

    @property
    def network(self) -> Any:
        """The transformers module itself, for whoever needs more than the next token."""
        return self._model

    @torch.inference_mode()
    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [rows, length, vocabulary] of whole sequences. Rows may be padded on the right: attention is causal,
        so what stands behind a token cannot change its logits."""
        logits: torch.Tensor = self._model(input_ids=ids.to(self.device), use_cache=False).logits
        return logits

    @torch.inference_mode()
    def _logits(self, ids: list[int], cache: Any) -> torch.Tensor:
        """Logits of the next token, (vocabulary,) in float32 on the CPU."""
        try:
            out = self._model(input_ids=torch.tensor([ids], device=self.device), past_key_values=cache, **self._options)
        except torch.OutOfMemoryError as error:
            raise SetupError(
                f"the device {self.device} has too little memory for a context of this length",
                hint="shorten the conversation, or use --set where.device=cpu",
            ) from error
        logits: torch.Tensor = out.logits[0, -1].float().cpu()
        if logits.isnan().any():
            raise DivergedError(
                "the model computes no numbers any more (NaN): its weights are damaged or its training diverged",
                hint="use an earlier checkpoint",
            )
        return logits


def room(context_length: int, prompt: int, max_tokens: int | None) -> int:
    """See :meth:`LocalModel.room`."""
    if prompt == 0:
        raise InputError("the prompt is empty")
    if prompt >= context_length:
        raise ContextError(
            f"the prompt has {prompt} tokens; the context holds {context_length}, answer included",
            hint="shorten the messages, or start a new conversation",
        )
    left = context_length - prompt
    return left if max_tokens is None else min(left, max_tokens)


def _choose(logits: torch.Tensor, temperature: float, top_p: float, random: torch.Generator) -> int:
    if temperature < COLDEST:
        return int(logits.argmax())
    probabilities, order = torch.softmax(logits / temperature, 0).sort(descending=True, stable=True)
    # The nucleus is the smallest set of likeliest tokens with a mass of at least top_p; the first is always in it.
    outside = probabilities.cumsum(0) - probabilities >= top_p
    outside[0] = False
    probabilities[outside] = 0.0
    return int(order[torch.multinomial(probabilities, 1, generator=random)])


def _watched(logits: torch.Tensor, watcher: Watcher | None, choose: Callable[[torch.Tensor], int]) -> int | None:
    """The token that ``choose`` takes of those that the watcher allows; None where it allows none.

    A token that is drawn and forbidden is struck out and another one drawn, which is the same as drawing from what is
    allowed, without asking about the whole vocabulary.
    """
    if watcher is None:
        return choose(logits)
    rest = logits.clone()
    while bool(rest.isfinite().any()):
        token = choose(rest)
        if watcher.allows(token):
            watcher.chose(logits, token)
            return token
        rest[token] = -torch.inf
    return None


class Answer:
    """One answer as text, piece by piece; iterate once. ``finish_reason`` and ``tokens`` are final at the end."""

    def __init__(
        self, model: LocalModel, prompt_ids: Sequence[int], sampling: Sampling, watcher: Watcher | None = None
    ) -> None:
        """Raises ``ContextError`` at once where the prompt does not fit the context."""
        self.finish_reason: FinishReason = "stop"
        self.tokens = 0
        self._room = model.room(len(prompt_ids), sampling.max_tokens)
        self._stop = tuple(text for text in sampling.stop if text)
        self._renderer = model.renderer
        self._ids = model.generate(
            prompt_ids,
            self._room,
            sampling.temperature,
            sampling.top_p,
            sampling.seed,
            model.renderer.stop_ids,
            *([] if watcher is None else [watcher]),
        )

    @classmethod
    def to(cls, model: LocalModel, messages: Messages, sampling: Sampling) -> Answer:
        return cls(model, model.renderer.prompt_ids(messages), sampling)

    def __iter__(self) -> Generator[str, None, None]:
        with closing(self._ids):  # whoever breaks off the answer ends the generation, at once
            yield from self._until_stop()

    def _until_stop(self) -> Iterator[str]:
        held = ""  # what may be the beginning of a stop text
        for piece in self._pieces():
            held += piece
            at = min((found for text in self._stop if (found := held.find(text)) >= 0), default=-1)
            if at >= 0:
                self.finish_reason = "stop"
                if at:
                    yield held[:at]
                return
            keep = _begun(held, self._stop)
            if ready := held[: len(held) - keep]:
                yield ready
            held = held[len(held) - keep :]
        if held:
            yield held

    def _pieces(self) -> Iterator[str]:
        """Decoded text as it grows. The last tokens are decoded again with the next: neighbours change text."""
        ids: list[int] = []
        begin = shown = 0  # tokens from ``begin`` are decoded; those before ``shown`` were given out
        for token in self._ids:
            ids.append(token)
            self.tokens += 1
            self.finish_reason = "length" if self.tokens == self._room else "stop"
            before = self._renderer.decode(ids[begin:shown])
            after = self._renderer.decode(ids[begin:])
            if len(after) > len(before) and not after.endswith(UNFINISHED):
                begin, shown = shown, len(ids)
                yield after[len(before) :]
        rest = self._renderer.decode(ids[begin:])[len(self._renderer.decode(ids[begin:shown])) :]
        if rest:
            yield rest


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` are the beginning of one of ``stops``."""
    return max(
        (size for stop in stops for size in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:size])),
        default=0,
    )

"""Log-probabilities in OpenAI's forms: of a prompt (``echo``), and of the tokens of an answer as they are chosen.

They are the model's own, in nats, before temperature and nucleus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ilab.models.local import LocalModel
from ilab.models.renderer import Renderer


@dataclass(frozen=True)
class Scored:
    """A token of an answer: its text, its log-probability, and the likeliest in its place, the best first."""

    text: str
    logprob: float
    best: tuple[tuple[str, float], ...]


class Scorer:
    """Notes the tokens of one answer, ``top`` alternatives to each. The token that ends the answer is not noted."""

    def __init__(self, renderer: Renderer, top: int) -> None:
        self.tokens: list[Scored] = []
        self._renderer, self._top = renderer, top

    def allows(self, _: int) -> bool:
        return True

    def chose(self, logits: torch.Tensor, token: int) -> None:
        if token in self._renderer.stop_ids:
            return
        logs = logits.log_softmax(-1)
        best = logs.topk(min(self._top, len(logs)))
        alternatives = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        told = tuple((self._text(other), value) for other, value in alternatives)
        self.tokens.append(Scored(self._text(token), logs[token].item(), told))

    def _text(self, token: int) -> str:
        return self._renderer.decode([token], keep_special=True)


def chat_logprobs(tokens: Sequence[Scored]) -> dict[str, Any]:
    """``logprobs`` of a chat completion."""
    return {"content": [{**_entry(t.text, t.logprob), "top_logprobs": [_entry(*b) for b in t.best]} for t in tokens]}


def text_logprobs(tokens: Sequence[Scored], offset: int = 0) -> dict[str, Any]:
    """``logprobs`` of a text completion whose first token stands ``offset`` characters after the beginning."""
    offsets = [offset]
    for token in tokens:
        offsets.append(offsets[-1] + len(token.text))
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [dict(token.best) | {token.text: token.logprob} for token in tokens],
        "text_offset": offsets[:-1],
    }


def _entry(text: str, logprob: float) -> dict[str, Any]:
    """``bytes`` is null where the token is a part of a character, which its text does not say."""
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}


@torch.inference_mode()
def echo(model: LocalModel, ids: Sequence[int], top: int) -> tuple[str, dict[str, Any]]:
    """The prompt with the likeliest next token as text, and ``logprobs`` of all of these tokens.

    The first token has none (null). ``top`` alternatives are told for each, and the token itself among them. Raises
    ``ContextError`` where no token has room behind the prompt.
    """
    model.room(len(ids), 1)
    logs = model.logits(torch.tensor([list(ids)]))[0].float().log_softmax(-1).cpu()
    every = [*ids, int(logs[-1].argmax())]
    names = [model.renderer.decode([token], keep_special=True) for token in every]
    values: list[float | None] = [None]
    tops: list[dict[str, float] | None] = [None]
    for place, token in enumerate(every[1:]):
        own = logs[place, token].item()
        best = logs[place].topk(min(top, logs.shape[-1]))
        told = {
            model.renderer.decode([other], keep_special=True): value
            for other, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        }
        values.append(own)
        tops.append(told | {names[place + 1]: max(own, told.get(names[place + 1], own))})
    offsets = [sum(map(len, names[:at])) for at in range(len(names))]
    logprobs = {"tokens": names, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}
    return model.renderer.decode(every, keep_special=True), logprobs

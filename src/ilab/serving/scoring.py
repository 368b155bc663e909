"""The log-probabilities of a prompt in OpenAI's form: what ``echo`` with ``logprobs`` asks of ``/v1/completions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ilab.models.local import LocalModel


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

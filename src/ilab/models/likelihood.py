"""How likely a model finds a text behind another one: what every score by likelihood stands on.

    pairs = [encode_pair(renderer, "Which port?\\nAnswer:", f" {option}") for option in options]
    for index, found in likelihoods.score(pairs): ...

A :class:`Pair` is token ids: a ``context`` that is given and a ``continuation`` that is scored. :class:`Likelihoods`
is who scores them: a model in this process (:mod:`ilab.models.likelihood_local`) or a server that tells the
log-probabilities of a prompt (:mod:`ilab.models.likelihood_served`). Whoever it is, a pair has the same value in any
company and order: batches, shared contexts and caches change time, not results (within 1e-4 nats in float32).

What does not fit the model's window is cut from the context's left, as lm-evaluation-harness 0.4.13 does it, and the
number of tokens cut is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ilab.errors import InputError
from ilab.models.renderer import Renderer


@dataclass(frozen=True, slots=True)
class Pair:
    """Token ids: ``context`` is given (one token at least), ``continuation`` is scored (may be empty: certain)."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """``total`` is the continuation's summed log-probability in nats (NaN where the model computes no numbers).

    ``greedy`` says whether every token of it is the model's first choice, ``tokens`` how many it has, ``cut`` how many
    tokens on the context's left did not fit the model's window.
    """

    total: float
    greedy: bool
    tokens: int
    cut: int = 0

    @property
    def known(self) -> bool:
        return math.isfinite(self.total)


class Likelihoods(Protocol):
    """Scores pairs. ``dtype`` is what it computes in, as torch names it, or ``served``."""

    @property
    def dtype(self) -> str: ...

    @property
    def context_length(self) -> int: ...

    def score(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        """(index, likelihood) of every pair, batch by batch, so that each batch can be kept at once; not in order.

        Raises ``InputError`` for an empty context, ``ContextError`` for a continuation longer than the window, before
        anything is computed.
        """
        ...


def score_all(likelihoods: Likelihoods, pairs: Sequence[Pair]) -> list[Likelihood]:
    """The likelihoods of ``pairs``, in their order."""
    found = dict(likelihoods.score(pairs))
    return [found[index] for index in range(len(pairs))]


class ContinuationError(InputError):
    """A continuation is longer than the model can read at once."""


def fit(pair: Pair, context_length: int) -> tuple[Pair, int]:
    """``pair`` with as much of its context as the window holds, and how many tokens were cut on the left.

    The last token of the continuation is never read, so a window of n tokens scores n + 1. Raises as
    :meth:`Likelihoods.score` does.
    """
    if not pair.context:
        raise InputError("a likelihood needs a context of one token at least, such as the beginning-of-text token")
    if len(pair.continuation) > context_length:
        raise ContinuationError(
            f"the text to score has {len(pair.continuation)} tokens; the model reads {context_length}",
            hint="shorten the answer or the option",
        )
    cut = max(len(pair.context) + len(pair.continuation) - context_length - 1, 0)
    return (Pair(pair.context[cut:], pair.continuation), cut) if cut else (pair, 0)


def encode_pair(renderer: Renderer, context: str, continuation: str, *, rendered: bool = False) -> Pair:
    """Two texts as a pair, with the tokens that lm-evaluation-harness 0.4.13 gives them (``TemplateLM._encode_pair``).

    Blanks at the end of the context count as the continuation's. Both are tokenised together and cut where the
    context's own tokens end; the tokenizer's opening token comes first, unless the text begins with it. An empty
    context is the opening token, or the one that ends a text. ``rendered`` says that a chat template made the context,
    so that special tokens in it are control tokens; otherwise they are ordinary text.
    """
    encode = renderer.encode_rendered if rendered else renderer.encode_text
    given, whole = encode(context.rstrip()), encode(context + continuation)
    if not given:
        first = renderer.first_id
        return Pair((first,), tuple(whole)) if whole[:1] != [first] else Pair(tuple(whole[:1]), tuple(whole[1:]))
    opening = renderer.begin_ids
    if rendered and given[: len(opening)] == opening:
        opening = []
    begin = (*opening, *given)
    return Pair(begin, (*opening, *whole)[len(begin) :])

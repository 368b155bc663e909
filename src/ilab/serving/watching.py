"""What goes with an answer as it is written: the scores of its tokens, and the form that it must keep."""

from __future__ import annotations

import torch

from ilab.models.renderer import Renderer
from ilab.serving.grammar import Grammar, States
from ilab.serving.scoring import Scored, Scorer

UNFINISHED = "\ufffd"  # what decoding shows for a part of a character
LONGEST = 3  # such parts that may stand behind one another (UTF-8)
NEIGHBOURS = 8  # tokens that are decoded together


class Watch:
    """Notes scores where ``top`` is given; allows what ``grammar`` allows, where there is one.

    A token may come where the text with it is the beginning of a text of the grammar, a token that ends the answer
    where the text is a whole one. Half a character may come where any character may stand in a string.
    """

    def __init__(self, renderer: Renderer, top: int | None, grammar: Grammar | None) -> None:
        self._renderer = renderer
        self._scorer = None if top is None else Scorer(renderer, top)
        self._grammar = grammar
        self._states: States | None = grammar.start() if grammar else None
        self._ids: list[int] = []  # the last ones: neighbours change a token's text

    @property
    def tokens(self) -> list[Scored]:
        return self._scorer.tokens if self._scorer else []

    def allows(self, token: int) -> bool:
        if self._grammar is None or self._states is None:
            return True
        if token in self._renderer.stop_ids:
            return self._grammar.complete(self._states)
        if token in self._renderer.special_tokens:
            return False
        return self._after(token) is not None

    def chose(self, logits: torch.Tensor, token: int) -> None:
        if self._scorer is not None:
            self._scorer.chose(logits, token)
        if self._grammar is None or token in self._renderer.stop_ids:
            return
        self._states = self._after(token)
        self._ids = [*self._ids[1 - NEIGHBOURS :], token]

    def _after(self, token: int) -> States | None:
        """Where the grammar stands after ``token``; None where it may not come."""
        if self._grammar is None or self._states is None:
            return None
        settled = self._renderer.decode(self._ids).rstrip(UNFINISHED)
        text = self._renderer.decode([*self._ids, token])
        new = text[len(settled) :]
        whole = new.rstrip(UNFINISHED)
        if not new or not text.startswith(settled) or len(new) - len(whole) > LONGEST:
            return None
        states = self._grammar.after(self._states, whole)
        if whole != new and (not states or not self._grammar.after(states, "\u4e00")):
            return None
        return states or None

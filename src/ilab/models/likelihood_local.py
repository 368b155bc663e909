"""Likelihoods from a model in this process (transformers), with shared contexts and cached prefixes.

One forward pass reads a batch of rows as :mod:`ilab.models.branches` plans them. Rows are padded on the right;
attention is causal, so padding changes nothing before it. Branches are kept apart by an attention mask and by
positions (tree attention, as in SpecInfer: Miao et al. 2024, section 4.2). A hook before the output layer keeps only
the positions that are asked for, so that the matrix product with the vocabulary, the largest part of a small model's
work, is done for them alone; whatever the model does to its logits afterwards still happens.

Not every architecture can share: recurrent layers read the branches one after the other. So sharing is *proven* on
the loaded model before it is used: a few made-up pairs are scored both ways and must agree; otherwise every pair has
a row of its own. Layers that see a sliding window share only where the whole row lies inside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import torch

from ilab.errors import SetupError
from ilab.models.branches import Group, Room, Row, batches, plan
from ilab.models.likelihood import Likelihood, Pair, fit
from ilab.models.local import LocalModel
from ilab.models.weights import BUILDING

TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 4096}  # padded tokens of one pass; cpu: 512 to 4096 differ little
CELLS = {"cpu": 1 << 24, "cuda": 1 << 29, "mps": 1 << 26}  # numbers in the logits of one pass
AGREE = {"float32": 1e-4, "float64": 1e-8}  # nats; lower precisions differ by as much as they round
ROUGH = 0.3
UNPROVEN = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, NotImplementedError)


class LocalLikelihoods:
    """A :class:`~ilab.models.likelihood.Likelihoods` over a loaded model. One caller at a time.

    ``batch`` is how many rows one forward pass has: a number, or ``auto`` for what suits the device. Where memory does
    not suffice, batches are halved. ``share`` False gives every pair a row of its own, whatever the model can.
    """

    def __init__(self, model: LocalModel, batch: int | Literal["auto"] = "auto", *, share: bool = True) -> None:
        self._network = model.network
        self._device = model.device
        self._context_length = model.context_length
        self._share = share
        kind = model.device.split(":", maxsplit=1)[0]
        tokens = TOKENS.get(kind, TOKENS["cpu"]) if batch == "auto" else batch * model.context_length * 2
        self._room = Room(tokens, CELLS.get(kind, CELLS["cpu"]), None if batch == "auto" else batch)
        self._head = self._network.get_output_embeddings()
        self._vocabulary = int(self._network.config.get_text_config().vocab_size)

    @property
    def dtype(self) -> str:
        return str(self._network.dtype).removeprefix("torch.")

    @property
    def context_length(self) -> int:
        return self._context_length

    def score(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
        """See :meth:`ilab.models.likelihood.Likelihoods.score`. Raises ``SetupError`` where one row is too much for
        the device's memory.
        """
        fitted = [fit(pair, self._context_length) for pair in pairs]
        longest = self._shareable if self._share and len(pairs) > 1 else 0
        for group in plan([(index, pair) for index, (pair, _) in enumerate(fitted)], longest):
            for index, found in self._score_group(group):
                yield index, Likelihood(*found, fitted[index][1])

    @cached_property
    def _shareable(self) -> int:
        """The longest sequence that may share its context: none where sharing is not proven."""
        config = self._network.config.get_text_config()
        windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        kinds = set(getattr(config, "layer_types", None) or [])
        limited = kinds != {"full_attention"} and getattr(config, "use_sliding_window", True)
        longest = min((w for w in windows if isinstance(w, int) and limited), default=self._context_length)
        return longest if longest and self._proves_sharing(longest) else 0

    def _proves_sharing(self, longest: int) -> bool:
        """Whether made-up pairs score the same with shared contexts as each on its own."""

        def made(seed: int, count: int) -> tuple[int, ...]:
            return tuple((seed + 7919 * at) % self._vocabulary for at in range(count))

        size = max(min(6, longest // 4, self._context_length // 4), 1)
        prefix = made(1, size)
        contexts = [(*prefix, *made(2, size)), (*prefix, *made(3, max(size - 1, 1)))]
        pairs = [Pair(context, made(seed, count)) for context in contexts for seed, count in ((4, size), (5, 2))]
        alone = [found for group in plan(list(enumerate(pairs)), 0) for found in self._score_group(group)]
        rows = [r for group in plan(list(enumerate(pairs)), longest) for r in group.rows]
        cut = Group(prefix, tuple(_behind(row, size) for row in rows))
        try:
            together = dict(self._score_group(cut))
        except UNPROVEN:
            return False
        allowed = AGREE.get(self.dtype, ROUGH)
        return all(abs(together[index][0] - found[0]) <= allowed * (1 + abs(found[0]) / 100) for index, found in alone)

    def _score_group(self, group: Group) -> Iterator[tuple[int, tuple[float, bool, int]]]:
        kept = self._read_prefix(group.prefix) if group.prefix else []
        for batch in batches(group, self._room, self._vocabulary):
            waiting = [batch]
            while waiting:
                rows = waiting.pop()
                try:
                    found = self._score_rows(rows, kept)
                except torch.OutOfMemoryError as error:
                    if len(rows) == 1:
                        raise SetupError(
                            f"the device {self._device} has too little memory for a question of this length",
                            hint="use --set where.device=cpu",
                        ) from error
                    waiting += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
                    continue
                yield from found

    @torch.inference_mode()
    def _read_prefix(self, prefix: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values [1, heads, tokens, size] of every layer for the tokens of ``prefix``."""
        with BUILDING:
            from transformers import DynamicCache
        cache = DynamicCache()
        ids = torch.tensor([prefix], device=self._device)
        with self._only(torch.zeros(1, dtype=torch.long, device=self._device)):
            self._network(input_ids=ids, past_key_values=cache, use_cache=True)
        return [(layer.keys, layer.values) for layer in cache.layers]

    @torch.inference_mode()
    def _score_rows(
        self, rows: Sequence[Row], kept: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> list[tuple[int, tuple[float, bool, int]]]:
        """(index, (total, greedy, tokens)) of all pairs in ``rows``, which stand behind the prefix ``kept``."""
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows], device=self._device)
        reads = [
            (at * width + place, token) for at, row in enumerate(rows) for _, of in row.reads for place, token in of
        ]
        if not reads:  # nothing but empty continuations, which are certain
            return [(index, (0.0, True, 0)) for row in rows for indices, _ in row.reads for index in indices]
        places = sorted({place for place, _ in reads})
        rank = {place: at for at, place in enumerate(places)}
        wanted = torch.tensor(places, device=self._device)
        at = torch.tensor([rank[place] for place, _ in reads], device=self._device)
        tokens = torch.tensor([token for _, token in reads], device=self._device)
        with self._only(wanted):
            logits = self._network(input_ids=ids, **self._attention(rows, width, kept)).logits
        logits = logits[0] if logits.shape[:2] == (1, len(places)) else logits.flatten(0, 1)[wanted]
        logits = logits.float()
        values = (logits[at, tokens] - logits.logsumexp(-1)[at]).tolist()
        first = (logits.argmax(-1)[at] == tokens).tolist()
        found, begin = [], 0
        for row in rows:
            for indices, of in row.reads:
                part = slice(begin, begin + len(of))
                one = (sum(values[part]), all(first[part]), len(of))
                found += [(index, one) for index in indices]
                begin += len(of)
        return found

    def _attention(
        self, rows: Sequence[Row], width: int, kept: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> dict[str, Any]:
        """The arguments that say who sees whom. Rows without branches need none but the cached prefix."""
        options: dict[str, Any] = {"use_cache": False}
        before = kept[0][0].shape[-2] if kept else 0
        if kept:
            with BUILDING:
                from transformers import DynamicCache
            cache = DynamicCache()
            for layer, (keys, values) in enumerate(kept):
                cache.update(keys.expand(len(rows), -1, -1, -1), values.expand(len(rows), -1, -1, -1), layer)
            options = {"use_cache": True, "past_key_values": cache}
        if not any(row.branched for row in rows):
            return options
        # Padding counts as one more branch: it sees its own row, and nobody sees it.
        padded = [[*row.branches, *[-1] * (width - len(row.ids))] for row in rows]
        branches = torch.tensor(padded, device=self._device)
        positions = [[*row.positions, *[0] * (width - len(row.ids))] for row in rows]
        same = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
        seen = same & torch.ones(width, width, dtype=torch.bool, device=self._device).tril()
        seen = torch.cat([seen.new_ones(len(rows), width, before), seen], dim=-1)
        hidden = torch.zeros(seen.shape, dtype=self._network.dtype, device=self._device)
        hidden.masked_fill_(~seen, torch.finfo(hidden.dtype).min)
        options["attention_mask"] = hidden[:, None]
        options["position_ids"] = torch.tensor(positions, device=self._device) + before
        return options

    @contextlib.contextmanager
    def _only(self, wanted: torch.Tensor) -> Iterator[None]:
        """While open, the output layer is given the positions ``wanted`` (of rows laid end to end) and no others."""
        if self._head is None:
            yield
            return

        def keep(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
            return (given[0].flatten(0, 1)[wanted][None], *given[1:]) if given else None

        hook = self._head.register_forward_pre_hook(keep)
        try:
            yield
        finally:
            hook.remove()


def _behind(row: Row, prefix: int) -> Row:
    """A row whose first ``prefix`` tokens are read apart."""
    reads = tuple((indices, tuple((place - prefix, token) for place, token in of)) for indices, of in row.reads)
    positions = tuple(position - prefix for position in row.positions[prefix:])
    return Row(row.ids[prefix:], row.branches[prefix:], positions, reads)

"""Likelihoods against the network alone: architectures, shared contexts, cached prefixes, windows, memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as t

from ilab.errors import InputError, SetupError
from ilab.models.branches import STEP, Room, batches, plan
from ilab.models.likelihood import ContinuationError, Likelihood, Pair, fit, score_all
from ilab.models.likelihood_local import LocalLikelihoods

WINDOW = 192
SMALL = {
    "vocab_size": 200, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": WINDOW, "initializer_range": 0.5,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
OLD = {"vocab_size": 200, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.5}
MIXED = ["sliding_attention", "full_attention"]
NETWORKS = {  # name: (network, config, the longest sequence that may share; 0 where branches cannot be kept apart)
    "llama": (t.LlamaForCausalLM, lambda: t.LlamaConfig(**SMALL), WINDOW),
    "granite": (t.GraniteForCausalLM, lambda: t.GraniteConfig(**SMALL, logits_scaling=4.0), WINDOW),
    "mixtral": (t.MixtralForCausalLM, lambda: t.MixtralConfig(**SMALL, num_local_experts=4), WINDOW),
    "gemma3": (
        t.Gemma3ForCausalLM,
        lambda: t.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=64, layer_types=MIXED),
        64,
    ),
    "gpt2": (t.GPT2LMHeadModel, lambda: t.GPT2Config(**OLD, n_embd=32, n_layer=2, n_head=2, n_positions=WINDOW), WINDOW),
    "bloom": (t.BloomForCausalLM, lambda: t.BloomConfig(**OLD, hidden_size=32, n_layer=2, n_head=2), 0),
    "hybrid": (
        t.GraniteMoeHybridForCausalLM,
        lambda: t.GraniteMoeHybridConfig(
            **SMALL, layer_types=["mamba", "attention"], mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8,
            num_local_experts=0, shared_intermediate_size=48,
        ),
        0,
    ),
}  # fmt: skip


def network(name: str, dtype: torch.dtype = torch.float32) -> Any:
    kind, config, _ = NETWORKS[name]
    torch.manual_seed(3)
    return kind(config()).eval().to(dtype)


def around(one: Any, window: int = WINDOW) -> Any:
    """What of a LocalModel is needed to score."""
    return SimpleNamespace(network=one, device="cpu", context_length=window)


def made() -> list[Pair]:
    draw = random.Random(3)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(5, 200) for _ in range(count))

    shots, common = tokens(STEP + 20), tokens(5)
    pairs = []
    for at in range(6):
        context = (shots if at % 3 else ()) + tokens(draw.randrange(3, 20))
        options = [tokens(draw.randrange(1, 9)) for _ in range(3)] + [common[:2], common, (), (7,)]
        pairs += [Pair(context, option) for option in options]
    pairs += [Pair(tokens(5), tokens(1)), Pair(tokens(WINDOW + 9), tokens(4)), Pair(tokens(WINDOW), (3,))]
    return [*pairs, pairs[0], Pair(tokens(1), tokens(WINDOW))]


PAIRS = made()


def alone(one: Any, pair: Pair, window: int = WINDOW) -> tuple[float, bool]:
    ids = (pair.context + pair.continuation)[-(window + 1) :]
    if not pair.continuation:
        return 0.0, True
    with torch.no_grad():
        logs = one(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)[-len(pair.continuation) :]
    targets = torch.tensor(pair.continuation)
    return logs.gather(1, targets[:, None]).sum().item(), bool((logs.argmax(-1) == targets).all())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_architecture_scores_as_alone(name: str) -> None:
    one = network(name)
    likelihoods = LocalLikelihoods(around(one))
    wanted = [alone(one, pair) for pair in PAIRS]
    found = score_all(likelihoods, PAIRS)
    assert [value.total for value in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert [value.greedy for value in found] == [greedy for _, greedy in wanted]
    assert likelihoods._shareable == NETWORKS[name][2]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_company_and_order_change_nothing(batch: int) -> None:
    likelihoods = LocalLikelihoods(around(network("llama")), batch)
    first = score_all(likelihoods, PAIRS)
    assert [one.total for one in score_all(likelihoods, PAIRS[::-1])][::-1] == pytest.approx(
        [one.total for one in first], abs=1e-4
    )
    single = [score_all(likelihoods, [pair])[0] for pair in PAIRS]
    assert [one.total for one in single] == pytest.approx([one.total for one in first], abs=1e-4)
    assert [(one.greedy, one.tokens, one.cut) for one in single] == [(o.greedy, o.tokens, o.cut) for o in first]


def test_half_precision_says_so_and_stays_near() -> None:
    one = network("llama", torch.bfloat16)
    likelihoods = LocalLikelihoods(around(one))
    assert likelihoods.dtype == "bfloat16"
    wanted = [alone(one, pair)[0] for pair in PAIRS]
    assert [value.total for value in score_all(likelihoods, PAIRS)] == pytest.approx(wanted, rel=0.05, abs=0.5)


def test_no_token_is_read_twice() -> None:
    """The shots once, each context once, and of the options what branches off."""
    shots = tuple(range(100))
    pairs = [Pair((*shots, 150 + at, 7), (20 + at, *range(size))) for at in range(5) for size in (0, 2, 3)]
    groups = plan(list(enumerate(pairs)), WINDOW)
    assert [(len(group.prefix), len(group.rows)) for group in groups] == [(100, 5)]
    assert all(len(row.ids) == 2 + 2 + 3 and row.places == 1 + 2 + 3 for row in groups[0].rows)
    assert groups[0].rows[0].positions == (0, 1, 2, 3, 2, 3, 4)
    letters = [Pair((*shots, 150 + at, 7), (letter,)) for at in range(5) for letter in range(4)]
    rows = plan(list(enumerate(letters)), WINDOW)[0].rows
    assert [len(row.ids) for row in rows] == [2] * 5 and not any(row.branched for row in rows)
    apart = plan(list(enumerate(pairs)), 0)
    assert sum(len(group.rows) for group in apart) == len(pairs)


def test_two_subjects_have_two_prefixes_and_strangers_none() -> None:
    first, second = tuple(range(60)), tuple(range(10, 80))
    contexts = [(*shots, 99, at) for shots in (first, second) for at in range(4)] + [(5, 5, 5), first]
    groups = plan([(at, Pair(context, (1, 2))) for at, context in enumerate(contexts)], WINDOW)
    found = {group.prefix[:1]: (len(group.prefix), len(group.rows)) for group in groups}
    assert found == {(0,): (59, 5), (10,): (71, 4), (): (0, 1)} or found == {(0,): (61, 4), (10,): (71, 4), (): (0, 2)}
    assert sorted(index for group in groups for row in group.rows for of, _ in row.reads for index in of) == [
        *range(10)
    ]


def test_batches_keep_to_their_room() -> None:
    pairs = [Pair(tuple(range(at, at + 10 + at % 3)), (1, 2, 3)) for at in range(20)]
    (group,) = plan(list(enumerate(pairs)), 0)
    for room, most in (
        (Room(60, 10**9), 5),
        (Room(10**6, 10**9, 3), 3),
        (Room(10**6, 3 * 200 * 2), 2),
        (Room(1, 1), 1),
    ):
        sizes = [len(batch) for batch in batches(group, room, 200)]
        assert sum(sizes) == 20 and max(sizes) == most


def test_what_cannot_be_scored_is_told_before_anything_is_computed() -> None:
    likelihoods = LocalLikelihoods(around(network("llama")))
    with pytest.raises(InputError, match="a context of one token at least"):
        next(likelihoods.score([PAIRS[0], Pair((), (1,))]))
    with pytest.raises(ContinuationError, match=f"has {WINDOW + 1} tokens; the model reads {WINDOW}"):
        next(likelihoods.score([Pair((1,), (1,) * (WINDOW + 1))]))
    assert fit(Pair((1, 2, 3), (4, 5)), 3) == (Pair((2, 3), (4, 5)), 1)
    assert fit(Pair((1, 2, 3), (4, 5)), 4) == (Pair((1, 2, 3), (4, 5)), 0)
    assert list(likelihoods.score([])) == []


def test_where_memory_is_short_batches_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    likelihoods = LocalLikelihoods(around(network("llama")))
    wanted = score_all(likelihoods, PAIRS)
    sizes: list[int] = []
    most = 2
    score_rows = LocalLikelihoods._score_rows

    def short(self: Any, rows: Sequence[Any], kept: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > most:
            raise torch.OutOfMemoryError
        return score_rows(self, rows, kept)

    monkeypatch.setattr(LocalLikelihoods, "_score_rows", short)
    found = score_all(likelihoods, PAIRS)
    assert max(sizes) > most and [one.total for one in found] == pytest.approx([o.total for o in wanted], abs=1e-4)
    most = 0
    with pytest.raises(SetupError, match="too little memory"):
        score_all(likelihoods, PAIRS)


def test_a_broken_model_has_no_likelihoods() -> None:
    one = network("llama")
    with torch.no_grad():
        one.lm_head.weight.fill_(float("nan"))
    found = score_all(LocalLikelihoods(around(one)), PAIRS[:4])
    assert not any(value.known for value in found)
    assert Likelihood(-1.0, False, 1).known

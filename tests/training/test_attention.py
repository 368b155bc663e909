"""Which attention a model is trained with, and that it is the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig, MistralConfig, Qwen2Config

from ilab.errors import SetupError
from ilab.training.attention import NAME, OWN, attention_for
from ilab.training.batch import tensors
from ilab.training.encode import EncodedSet
from ilab.training.forward import COMPARED, LossModel, PackingError, _own_loss, check
from ilab.training.loss import IGNORED
from ilab.training.plan import MicroBatch

SHAPE: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def rows(*lengths: int) -> EncodedSet:
    generator = torch.Generator().manual_seed(3)
    ids = tuple(tuple(torch.randint(5, 100, (n,), generator=generator).tolist()) for n in lengths)
    masks = tuple(tuple(at >= 2 for at in range(n)) for n in lengths)
    return EncodedSet(tuple(map(str, range(len(lengths)))), ids, masks, ())


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (LlamaConfig(**SHAPE), NAME),
        (GraniteConfig(**SHAPE), NAME),
        (Qwen2Config(**SHAPE), NAME),
        (MistralConfig(**SHAPE, sliding_window=None), NAME),
        (MistralConfig(**SHAPE, sliding_window=8), OWN),
        (Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=8, max_window_layers=1), OWN),
    ],
)
def test_a_model_that_looks_back_a_limited_way_keeps_its_own(config: Any, name: str) -> None:
    """Either way the check holds: the loss is that of its own logits, and packed samples do not see each other."""
    assert attention_for(config) == name
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float()
    model.set_attn_implementation(attention_for(config))
    check(LossModel(model), rows(5, 30, 17), "cpu")
    assert model.config._attn_implementation == name


def test_the_ends_of_samples_are_handed_to_the_layers() -> None:
    batch = tensors(MicroBatch(((0, 2, 1),)), rows(3, 6, 4), "cpu")
    assert batch.ends is not None and batch.ends.tolist() == [0, 3, 7, 13] and batch.longest == 6
    assert batch.positions is not None and batch.positions[0].tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert tensors(MicroBatch(((0,), (1,))), rows(3, 6, 4), "cpu").ends is None


def test_a_leak_between_samples_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.training import batch

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE), attn_implementation="sdpa").float()
    model.set_attn_implementation(attention_for(model.config))
    whole = batch.tensors

    def one_sample(micro_batch: MicroBatch, data: EncodedSet, device: Any) -> batch.Batch:
        made = whole(micro_batch, data, device)
        return batch.Batch(made.ids, made.labels)  # the ends are forgotten: samples see each other

    monkeypatch.setattr("ilab.training.forward.tensors", one_sample)
    with pytest.raises(PackingError, match="see each other"):
        check(LossModel(model), rows(25, 30, 17), "cpu")


def test_the_check_never_holds_the_logits_of_a_long_sample() -> None:
    """The loss of what is compared is that of all logits, cut by hand."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE), attn_implementation="sdpa").float()
    data = rows(5, 900)
    ids = torch.tensor([data.ids[1]])
    labels = torch.full_like(ids, IGNORED)
    labels[:, -COMPARED:] = ids[:, -COMPARED:]
    with torch.no_grad():
        logits = model(ids).logits[0, -COMPARED - 1 : -1]
    whole = torch.nn.functional.cross_entropy(logits, ids[0, -COMPARED:], reduction="sum").item()
    held: list[int] = []
    model.lm_head.register_forward_hook(lambda _, __, made: held.append(made.numel() // SHAPE["vocab_size"]))
    with torch.no_grad():
        assert _own_loss(model, ids, labels) == pytest.approx(whole, rel=1e-6)
    assert held == [COMPARED + 1]
    check(LossModel(model), data, "cpu")
    model.config.logits_scaling = 3.0  # the model itself does not divide by it: a family that is computed otherwise
    with pytest.raises(SetupError, match="in a way the trainer does not know"):
        check(LossModel(model), data, "cpu")

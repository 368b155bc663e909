"""The loop against independent references: separate documents, transformers' own loss, an unbroken run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import ROWS, SETTINGS, Trains, row
from transformers import AutoModelForCausalLM, GraniteConfig, GraniteForCausalLM, LlamaConfig, Qwen3Config

from ilab.config import TrainWhere
from ilab.core.store import digest_tree
from ilab.data import Message
from ilab.errors import InputError, Stopped
from ilab.models.renderer import Renderer
from ilab.training.attention import attention_for
from ilab.training.batch import tensors
from ilab.training.encode import EncodedSet, encode_samples, split_rows
from ilab.training.forward import LossModel, _own_attention, check, head_of, hidden_states
from ilab.training.loss import IGNORED, summed_loss
from ilab.training.pieces import EncodeOptions
from ilab.training.plan import MicroBatch
from ilab.training.records import of_row
from ilab.training.tiny import TinySpec, make_tiny

PACKED = TrainWhere(layout="packed")


def models() -> list[Any]:
    torch.manual_seed(0)
    shape = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
    }
    configs = [LlamaConfig(**shape), Qwen3Config(**shape, head_dim=16), GraniteConfig(**shape, logits_scaling=4.0)]
    found = [AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float().eval() for config in configs]
    for model in found:
        model.set_attn_implementation(attention_for(model.config))
    return found


@pytest.mark.parametrize("index", range(3))
def test_a_packed_row_equals_separate_documents(index: int) -> None:
    """Loss and gradients, against transformers' own loss document by document (training.md M1, M2)."""
    model = models()[index]
    generator = torch.Generator().manual_seed(1)
    documents = [torch.randint(5, 300, (n,), generator=generator).tolist() for n in (7, 23, 12)]
    packed = EncodedSet(
        ("a", "b", "c"), tuple(map(tuple, documents)), tuple(tuple([True] * len(d)) for d in documents), ()
    )
    batch = tensors(MicroBatch(((0, 1, 2),)), packed, "cpu")
    loss = summed_loss(hidden_states(model, batch), batch.labels, head_of(model), chunk=9)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    reference = torch.zeros(())
    for document in documents:
        tokens = torch.tensor([document])
        with _own_attention(model):
            mean = model(input_ids=tokens, labels=tokens).loss
        (mean * (len(document) - 1)).backward()
        reference += mean.detach() * (len(document) - 1)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=2e-5)


def test_the_mask_decides_what_bears_loss(data: EncodedSet, base: Path) -> None:
    batch = tensors(MicroBatch(((0,), (1,))), data, "cpu")
    kept = batch.labels != IGNORED
    assert kept.sum().item() == data.trained_counts[0] + data.trained_counts[1]
    text = Renderer.load(base).decode(batch.ids[0][kept[0]].tolist())
    assert text.startswith("It is 0.")


def test_a_batch_in_which_nothing_is_trained_has_zero_loss_and_gradient() -> None:
    hidden = torch.randn(2, 5, 8, requires_grad=True)
    head = torch.nn.Linear(8, 11)
    loss = summed_loss(hidden, torch.full((2, 5), IGNORED), head)
    loss.backward()
    assert loss.item() == 0.0
    assert hidden.grad is not None and not hidden.grad.any()


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_the_chunked_loss_equals_the_full_one(chunk: int) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 11)
    labels = torch.randint(0, 11, (3, 6))
    labels[0, :4] = IGNORED
    ours_in = torch.randn(3, 6, 8, requires_grad=True)
    theirs_in = ours_in.detach().clone().requires_grad_()
    ours = summed_loss(ours_in, labels, head, chunk)
    ours.backward()
    theirs = torch.nn.functional.cross_entropy(
        head(theirs_in)[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    torch.testing.assert_close(ours_in.grad, theirs_in.grad)


@pytest.mark.parametrize("change", [{"where": PACKED}, {"max_batch_tokens": 96}, {"max_batch_tokens": 4096}])
def test_the_trajectory_does_not_depend_on_the_layout(trains: Trains, tmp_path: Path, change: dict[str, Any]) -> None:
    """1 x 8 = 8 x 1 = uneven = packed: the same loss and gradient norm at every step."""
    rows = []
    for name, settings in (("a", {}), ("b", change)):
        trains(tmp_path / name, **settings)
        rows.append([json.loads(line) for line in (tmp_path / name / "out" / "metrics.jsonl").read_text().splitlines()])
    for first, second in zip(*rows, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=2e-4)
        assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=2e-3)
        assert first["trained_tokens"] == second["trained_tokens"]


@pytest.mark.parametrize("stop_at", [1, 3, 4, 7])
def test_a_stopped_run_goes_on_to_the_same_bytes(trains: Trains, tmp_path: Path, stop_at: int) -> None:
    """Stops inside an epoch, at its end, and in a later one; three epochs of three steps."""
    trains(tmp_path / "unbroken", schedule="cosine", warmup_steps=2)
    calls = 0

    def stopping() -> bool:
        nonlocal calls
        calls += 1
        return calls == stop_at

    broken = tmp_path / "broken"
    with pytest.raises(Stopped, match=f"after step {stop_at} of 9"):
        trains(broken, stopping, schedule="cosine", warmup_steps=2)
    index = trains(broken, schedule="cosine", warmup_steps=2)
    assert [entry["name"] for entry in index] == ["epoch-001", "epoch-002", "epoch-003"]
    assert digest_tree(broken / "out") == digest_tree(tmp_path / "unbroken" / "out")


def test_it_learns_and_the_candidates_are_models(trains: Trains, tmp_path: Path) -> None:
    index = trains(tmp_path, epochs=60, save_every=30)
    assert [entry["epoch"] for entry in index] == [30, 60]
    assert (
        index[1]["training_loss"]
        < 0.2
        < 4
        < json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "epoch-060").eval()
    renderer = Renderer.load(tmp_path / "out" / "epoch-060")
    prompt = renderer.prompt_ids([Message(role="user", content=ROWS[3].messages[0].content)])
    with torch.no_grad():
        for _ in range(20):
            prompt.append(int(model(torch.tensor([prompt])).logits[0, -1].argmax()))
            if prompt[-1] in renderer.stop_ids:
                break
    assert renderer.decode(prompt[:-1]).endswith("It is 6.It is 6.")


def test_a_loss_that_is_no_number_says_what_to_change(trains: Trains, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no number") as caught:
        trains(tmp_path, learning_rate=1e30, epochs=30)
    assert "train_learning_rate" in caught.value.hint


def test_the_loss_is_checked_against_the_models_own_logits(data: EncodedSet) -> None:
    for model in models():
        ids = tuple(tuple(i % 300 for i in row) for row in data.ids)
        check(LossModel(model), EncodedSet(data.rows, ids, data.trained, ()), "cpu")
    assert isinstance(models()[2], GraniteForCausalLM)


def test_rows_that_cannot_train_are_named(base: Path) -> None:
    renderer = Renderer.load(base)
    options = EncodeOptions(max_length=128)
    encoded = encode_samples(map(of_row, [*ROWS, row(99, "long " * 300, "x")]), renderer, options)
    assert [name for name, _ in encoded.left_out] == ["r99"]
    assert "train_sequence_length" in encoded.left_out[0][1]
    with pytest.raises(InputError, match="nothing to train on"):
        encode_samples([of_row(row(99, "long " * 300, "x"))], renderer, options)


def test_the_tiny_base_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert make_tiny(tmp_path / name, TinySpec(width=32, heads=2, feed_forward=64, vocabulary=400)) > 0
    assert digest_tree(tmp_path / "a") == digest_tree(tmp_path / "b")


def test_the_loss_of_held_out_rows_is_that_of_transformers(trains: Trains, data: EncodedSet, tmp_path: Path) -> None:
    index = trains(tmp_path, epochs=2, validation=0.3)
    training, held_out = split_rows(data, 0.3, SETTINGS["seed"])
    assert sorted(training.rows + held_out.rows) == sorted(data.rows)
    assert 0 < len(held_out.rows) < len(data.rows)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "epoch-002").eval()
    total = 0.0
    for ids, trained in zip(held_out.ids, held_out.trained, strict=True):
        labels = [token if bears else IGNORED for token, bears in zip(ids, trained, strict=True)]
        with torch.no_grad():
            mean = model(torch.tensor(ids)[None], labels=torch.tensor([labels])).loss.item()
        total += mean * sum(trained[1:])
    assert index[-1]["loss"] == pytest.approx(total / sum(held_out.trained_counts), rel=1e-4)
    assert split_rows(data, 0.0, 1)[1].rows == ()
    with pytest.raises(InputError, match="every row"):
        split_rows(data, 0.9999999, 1)

"""Tests run against loopback only, from their own folder's helpers."""

from __future__ import annotations

import inspect
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# The same seed means the same examples, whatever else runs: found by chance, a mistake is found by whoever comes last.
# Hypothesis also mixes in constants from the source of all modules loaded so far, so that an edit anywhere, or another
# test in the same process, would change what a seed means. For new examples, take another seed.
providers._get_local_constants = providers.Constants  # type: ignore[assignment,unused-ignore]
settings.register_profile("repeatable", derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

sys.path.insert(0, str(Path(__file__).parent / "core"))
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
SENTENCES = ["How many locks has the canal? It has 14 locks.", "Größe, café, 東京 🙂", "Note: lamp=red; count=37."]
_connect = socket.socket.connect
_stack = inspect.stack
_connect_ex = socket.socket.connect_ex


def _stack_without_source(context: int = 0) -> list[inspect.FrameInfo]:
    """kfp asks for the stack at every setting of every task. For lines of source Python looks through all modules: in
    a process that has loaded torch a pipeline takes ten times as long to draw."""
    return _stack(context)


inspect.stack = _stack_without_source


def _loopback_only(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"tests may not reach {address[0]}: only loopback is allowed")
    _connect(self, address)


def _loopback_only_ex(self: socket.socket, address: Any) -> int:
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"tests may not reach {address[0]}: only loopback is allowed")
    return _connect_ex(self, address)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Refuse the network, and keep caches and stores of the user's out of reach."""
    monkeypatch.setattr(socket.socket, "connect", _loopback_only)
    monkeypatch.setattr(socket.socket, "connect_ex", _loopback_only_ex)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    yield


@pytest.fixture
def shared() -> Path:
    """The folder of real input that lies beside a checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a byte-level tokenizer, as a Hugging Face directory."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    from ilab.models.renderer import TINY_SPECIAL_TOKENS, TINY_TEMPLATE

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(TINY_SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    torch.manual_seed(5)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.8,  # large, so that a random model has clear preferences
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|end|>"),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "pad_token": "<|pad|>"}))
    (folder / "chat_template.jinja").write_text(TINY_TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def local(tiny_model: Path) -> Any:
    from ilab.models.local import LocalModel

    return LocalModel.load(tiny_model, "cpu")

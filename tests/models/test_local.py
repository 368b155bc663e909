"""The loop against transformers' own ``generate``."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ilab.errors import InputError, SetupError
from ilab.models.local import Answer, ContextError, LocalModel, Sampling, _choose

MESSAGES = [{"role": "user", "content": "How many locks has the canal?"}]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LocalModel:
    return LocalModel.load(tiny_model, "cpu")


@pytest.mark.parametrize("text", ["How many locks?", "Größe 東京 🙂", "a", "count=37. " * 12])
def test_greedy_generation_is_transformers(model: LocalModel, tiny_model: Path, text: str) -> None:
    from transformers import AutoModelForCausalLM

    prompt = model.renderer.prompt_ids([{"role": "user", "content": text}])
    reference = AutoModelForCausalLM.from_pretrained(tiny_model)
    out = reference.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=40, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    expected = out[0, len(prompt) :].tolist()
    stops = model.renderer.stop_ids
    expected = expected[: next((i for i, number in enumerate(expected) if number in stops), len(expected))]
    assert list(model.generate(prompt, 40, stop_ids=stops)) == expected
    assert expected, "the comparison compares nothing"


def test_cache_changes_nothing(model: LocalModel) -> None:
    """Feeding everything anew at each step gives the same tokens."""
    ids = model.renderer.prompt_ids(MESSAGES)
    found = list(model.generate(ids, 12))
    for number in found:
        assert next(model.generate(ids, 1)) == number
        ids = [*ids, number]


def test_sampling_is_seeded_and_has_the_right_frequencies(model: LocalModel) -> None:
    prompt = model.renderer.prompt_ids(MESSAGES)
    first = list(model.generate(prompt, 30, temperature=1.0, seed=3))
    assert first == list(model.generate(prompt, 30, temperature=1.0, seed=3))
    assert first != list(model.generate(prompt, 30, temperature=1.0, seed=4))
    logits = torch.tensor([math.log(p) for p in (0.1, 0.5, 0.4)])
    random = torch.Generator().manual_seed(0)
    counts = Counter(_choose(logits, 1.0, 1.0, random) for _ in range(4000))
    for token, probability in enumerate((0.1, 0.5, 0.4)):
        error = 4 * math.sqrt(probability * (1 - probability) / 4000)
        assert abs(counts[token] / 4000 - probability) < error
    nucleus = Counter(_choose(logits, 1.0, 0.6, random) for _ in range(500))
    assert set(nucleus) == {1, 2}
    assert {_choose(logits, 1.0, 0.01, random) for _ in range(50)} == {1}
    assert _choose(logits, 1e-30, 1.0, random) == 1


def test_the_context_is_respected(model: LocalModel) -> None:
    assert model.context_length == 256
    assert len(list(model.generate([7] * 250))) == 6
    assert len(list(model.generate([7] * 250, 99))) == 6
    assert len(list(model.generate([7] * 250, 2))) == 2
    with pytest.raises(ContextError, match="the prompt has 256 tokens; the context holds 256"):
        next(model.generate([7] * 256))
    with pytest.raises(InputError, match="empty"):
        next(model.generate([]))


def test_answers_are_the_decoded_tokens(model: LocalModel) -> None:
    for seed in range(6):
        sampling = Sampling(max_tokens=60, temperature=1.5, seed=seed)
        answer = Answer.to(model, MESSAGES, sampling)
        pieces = list(answer)
        ids = list(
            model.generate(model.renderer.prompt_ids(MESSAGES), 60, 1.5, seed=seed, stop_ids=model.renderer.stop_ids)
        )
        assert "".join(pieces) == model.renderer.decode(ids)
        assert answer.tokens == len(ids)
        assert answer.finish_reason == ("length" if len(ids) == 60 else "stop")


class Scripted(LocalModel):
    """The real decoding and stopping over tokens that are given."""

    def __init__(self, real: LocalModel, ids: list[int]) -> None:
        self.renderer, self.context_length, self.ids = real.renderer, real.context_length, ids

    def generate(self, *args: object, **kwargs: object) -> Iterator[int]:  # type: ignore[override]
        yield from self.ids


@pytest.mark.parametrize(
    ("said", "stop", "shown", "reason"),
    [
        ("The 東京 🙂 canal", (), "The 東京 🙂 canal", "stop"),
        ("one\n\ntwo", ("\n\n",), "one", "stop"),
        ("one\n\ntwo", ("o\n\nt", "ne\n\nt"), "o", "stop"),
        ("END", ("END",), "", "stop"),
        ("almost EN", ("END",), "almost EN", "stop"),
        ("EEND of", ("END",), "E", "stop"),
    ],
)
def test_stop_texts(model: LocalModel, said: str, stop: tuple[str, ...], shown: str, reason: str) -> None:
    scripted = Scripted(model, model.renderer.encode_text(said))
    answer = Answer(scripted, [7], Sampling(stop=stop))
    pieces = list(answer)
    assert "".join(pieces) == shown
    assert answer.finish_reason == reason
    assert all(pieces)
    assert not any("\ufffd" in piece for piece in pieces), "half a character was shown"


def test_half_a_character_at_the_end_is_shown_as_such(model: LocalModel) -> None:
    ids = model.renderer.encode_text("a🦜")[:-1]
    assert "".join(Answer(Scripted(model, ids), [7], Sampling())) == model.renderer.decode(ids)


def copy(tiny_model: Path, to: Path) -> Path:
    return Path(shutil.copytree(tiny_model, to / "copy"))


def test_models_that_are_not_loaded(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json is missing"):
        LocalModel.load(tmp_path)
    with pytest.raises(SetupError, match="no quantum device"):
        LocalModel.load(tiny_model, "quantum")
    pickled = copy(tiny_model, tmp_path)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        LocalModel.load(pickled, "cpu")


def test_damaged_weights(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    damaged = copy(tiny_model, tmp_path)
    (damaged / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(InputError, match="cannot be loaded"):
        LocalModel.load(damaged, "cpu")
    weights = load_file(tiny_model / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="NaN"):
        next(LocalModel.load(damaged, "cpu").generate([7]))


def test_code_that_comes_with_a_model_is_not_run(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy(tiny_model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: pass\nclass M: pass\n")
    with pytest.raises(InputError, match="cannot be loaded"):
        LocalModel.load(folder, "cpu")
    assert not mark.exists()


def test_models_loaded_in_several_threads_have_their_weights(tiny_model: Path) -> None:
    """transformers builds models under process-wide settings: unlocked, most of these loads failed or lost weights."""
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: LocalModel.load(tiny_model, "cpu"), range(12)))
    ids = torch.tensor([[5, 9, 30, 31]])
    expected = loaded[0].logits(ids)
    assert not expected.isnan().any()
    assert all(torch.equal(model.logits(ids), expected) for model in loaded)


def test_the_first_loads_of_a_process_may_be_in_two_threads(tiny_model: Path) -> None:
    """transformers imports its parts on first use, which two threads cannot do at once: most such processes failed."""
    program = (
        "import sys, threading; from pathlib import Path; from concurrent.futures import ThreadPoolExecutor\n"
        "from ilab.models.local import LocalModel\n"
        "gate = threading.Barrier(2)\n"
        "def load(_):\n"
        "    gate.wait()\n"
        "    return list(LocalModel.load(Path(sys.argv[1]), 'cpu').generate([5, 9, 30], max_tokens=2))\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        "    assert len(set(map(tuple, pool.map(load, range(2))))) == 1\n"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tiny_model)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]

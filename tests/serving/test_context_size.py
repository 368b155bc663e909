"""The context that vLLM has room for: against sums done by hand for published models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ilab.config_where import ServeWhere
from ilab.hardware import GIB, Gpu, nvidia_gpus
from ilab.serving import vllm
from ilab.serving.backend import Job
from ilab.serving.context_size import Cache, cache_of, fit, rounded

LLAMA_8B = {  # grouped queries: 32 layers × 2 × 8 heads × 128 numbers × 2 bytes = 131,072 bytes per token
    "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
}  # fmt: skip
DEEPSEEK_LITE = {  # latent: 27 layers × (512 + 64) numbers × 2 bytes = 31,104 bytes per token
    "model_type": "deepseek_v2", "num_hidden_layers": 27, "hidden_size": 2048, "num_attention_heads": 16,
    "num_key_value_heads": 16, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "max_position_embeddings": 163840,
}  # fmt: skip
GPT_OSS = {  # 12 layers that keep all and 12 that keep 128 tokens, each 2 × 8 × 64 × 2 = 2,048 bytes per token
    "model_type": "gpt_oss", "num_hidden_layers": 24, "hidden_size": 2880, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}  # fmt: skip


def gpus(size: int, count: int = 1, free: int | None = None) -> tuple[Gpu, ...]:
    return (Gpu("NVIDIA", "nvidia", size, free=free),) * count


def model(folder: Path, config: dict[str, Any], weights: int) -> Path:
    """A folder with a file of weights that has this size and takes no room."""
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as handle:
        handle.truncate(weights)
    return folder


@pytest.mark.parametrize(
    ("config", "count", "size", "expected"),
    [
        (LLAMA_8B, 1, 2, Cache(131_072, 0, 131_072)),
        (LLAMA_8B, 4, 2, Cache(32_768, 0, 131_072)),
        (LLAMA_8B, 16, 2, Cache(16_384, 0, 131_072)),  # 8 heads on 16 GPUs: one on each, twice
        (LLAMA_8B, 1, 1, Cache(65_536, 0, 131_072)),
        (DEEPSEEK_LITE, 1, 2, Cache(31_104, 0, 163_840)),
        (DEEPSEEK_LITE, 4, 2, Cache(31_104, 0, 163_840)),  # the latent is whole on each
        (GPT_OSS, 1, 2, Cache(24_576, 12 * 2_048 * (128 + 8_192), 131_072)),
        ({**LLAMA_8B, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 1, 2, Cache(131_072, 0, 524_288)),
        ({**DEEPSEEK_LITE, "model_type": "minicpm3"}, 1, 2, None),  # vLLM keeps whole heads of it
        ({**LLAMA_8B, "layer_types": ["linear_attention"] * 32}, 1, 2, None),
        ({**LLAMA_8B, "num_key_value_heads": [4] * 32}, 1, 2, None),
        ({**LLAMA_8B, "num_hidden_layers": -1}, 1, 2, None),
        ({}, 1, 2, None),
    ],
)
def test_keys_and_values_by_hand(config: dict[str, Any], count: int, size: int, expected: Cache | None) -> None:
    assert cache_of(config, count, size) == expected


def test_a_context_that_does_not_fit_is_made_smaller(tmp_path: Path) -> None:
    # 24 GiB × 0.9 − 15 GiB − 1 GiB − 24 GiB × 0.04 = 4.64 GiB = 4,982,162,063 bytes; / 131,072 = 38,010 tokens
    found = fit(model(tmp_path, LLAMA_8B, 15 * GIB), gpus(24 * GIB), {})
    assert (found.context, found.utilisation) == (37_888, None)  # 37 × 1,024
    assert found.note == (
        "context: 37,888 tokens of the model's 131,072, which is what fits into 90% of 24 GiB of GPU memory; "
        "--max-ctx-size N sets another"
    )
    # one token less than that is kept as it is, though it is no round number
    assert (
        fit(model(tmp_path, {**LLAMA_8B, "max_position_embeddings": 38_010}, 15 * GIB), gpus(24 * GIB), {}).note == ""
    )
    model(tmp_path, LLAMA_8B, 15 * GIB)
    # half the bytes, twice the tokens: 76,021
    assert fit(tmp_path, gpus(24 * GIB), {"--kv-cache-dtype": "fp8"}).context == 75_776
    # two GPUs: 21.6 − 7.5 − 1 − 0.96 = 13.14 GiB; / 65,536 = 215,285: all of it fits
    assert fit(tmp_path, gpus(24 * GIB, 2), {}).context is None
    # 32-bit numbers are kept in 32 bits when that is asked for
    assert fit(tmp_path, gpus(24 * GIB), {"--dtype": "float32"}).context == 18_432  # 19,005


def test_a_latent_context(tmp_path: Path) -> None:
    # 40 GiB × 0.9 − 30 GiB − 1 GiB − 1.6 GiB = 3.4 GiB = 3,650,722,202 bytes; / 31,104 = 117,371 tokens
    assert fit(model(tmp_path, DEEPSEEK_LITE, 30 * GIB), gpus(40 * GIB), {}).context == 116_736  # 114 × 1,024


def test_numbers_of_32_bits_are_loaded_as_16(tmp_path: Path) -> None:
    found = fit(model(tmp_path, {**LLAMA_8B, "torch_dtype": "float32"}, 30 * GIB), gpus(24 * GIB), {})
    assert found.context == 37_888


def test_a_gpu_that_others_use_too(tmp_path: Path) -> None:
    # (18 − 0.5) / 24 GiB: 0.72; × 24 − 15 − 1 − 0.96 = 0.32 GiB; / 131,072 = 2,621 tokens
    found = fit(model(tmp_path, LLAMA_8B, 15 * GIB), gpus(24 * GIB, free=18 * GIB), {})
    assert (found.context, found.utilisation) == (2_560, 0.72)
    assert fit(tmp_path, gpus(24 * GIB, free=18 * GIB), {"--max-model-len": "9"}).utilisation == 0.72
    given = fit(tmp_path, gpus(24 * GIB, free=18 * GIB), {"--gpu-memory-utilization": "0.9"})
    assert (given.context, given.utilisation) == (37_888, None)
    tight = fit(tmp_path, gpus(16 * GIB), {})
    assert tight.context is None and "no room for a context in 90% of 16 GiB" in tight.note


def test_what_the_user_says_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model(tmp_path, LLAMA_8B, 15 * GIB)
    for given in ({"--max-model-len": "9"}, {"--quantization": "fp8"}, {"-pp": "2"}):
        assert fit(folder, gpus(24 * GIB), given).context is None
    assert fit(folder, (Gpu("GB10", "nvidia", 24 * GIB, shared=True),), {}).context is None

    def length(extra: tuple[str, ...] = (), **settings: Any) -> list[str]:
        job = Job(folder, ("m",), ServeWhere(**settings), extra=extra)
        command = vllm.command_line(job, None, vllm._fitted(job))
        return [word for at, word in enumerate(command) if command[at - 1] == "--max-model-len"]

    class Machine:
        gpus = nvidia_gpus("NVIDIA L4, 24576, 24000\nNVIDIA L4, 24576, 24000\n")

    monkeypatch.setattr(vllm, "detect", Machine)
    assert Machine.gpus[0].free == 24_000 << 20
    assert length() == ["37888"]
    assert length(max_ctx_size=500) == ["500"]
    assert length(("--max-model-len", "7")) == ["7"]
    assert length(("--max_model_len=7",)) == []
    assert length(gpus=2) == length(("-tp", "2")) == length(("--tensor_parallel_size=2",)) == []
    assert length(vllm_args=["--gpu-memory-utilization", "0.8"]) == ["17408"]  # 2.4 GiB less: 18,350
    assert length(gpus=3) == []  # more than there are: vLLM says so


def test_round_numbers() -> None:
    assert [rounded(n) for n in (-5, 0, 255, 256, 4095, 4096, 5119, 38010)] == [0, 0, 0, 256, 3840, 4096, 4096, 37888]

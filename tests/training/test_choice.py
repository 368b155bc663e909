"""What the options say of method and device, and the one line where it cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ilab.errors import InputError, SetupError
from ilab.training import choice
from ilab.training.choice import checked_device, choose_method, why_not_qlora

UNSAID: dict[str, Any] = {"method": None, "pipeline": None, "lora_rank": None, "lora_quantize_dtype": None}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def only(*packages: str) -> None:
        monkeypatch.setattr(choice, "find_spec", lambda name: object() if name in packages else None)
        monkeypatch.setattr(choice, "_can_quantise", lambda device: device != "mps")

    return only


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({}, None),
        ({"pipeline": "simple"}, "qlora"),
        ({"pipeline": "full"}, "full"),
        ({"pipeline": "accelerated"}, "full"),
        ({"pipeline": "accelerated", "lora_rank": 4}, "lora"),
        ({"pipeline": "accelerated", "lora_rank": 4, "lora_quantize_dtype": "nf4"}, "qlora"),
        ({"lora_rank": 0}, "full"),
        ({"lora_rank": 0, "lora_quantize_dtype": "nf4"}, "full"),
        ({"lora_quantize_dtype": "nf4"}, "qlora"),
        ({"pipeline": "simple", "lora_rank": 0}, "full"),
        ({"pipeline": "simple", "lora_quantize_dtype": "none"}, "lora"),
        ({"pipeline": "simple", "method": "osft"}, "osft"),
        ({"method": "qlora", "lora_rank": 4}, "qlora"),
    ],
)
def test_names_of_methods(installed: Callable[..., None], given: dict[str, Any], method: str | None) -> None:
    installed("peft", "bitsandbytes")
    assert choose_method({**UNSAID, **given}, "cpu") == choice.Choice(method)


@pytest.mark.parametrize(
    "given",
    [
        {"method": "osft", "lora_rank": 4},
        {"method": "lora", "lora_quantize_dtype": "nf4"},
        {"method": "lora", "lora_rank": 0},
    ],
)
def test_contradictions(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="has no meaning with"):
        choose_method({**UNSAID, **given}, "cpu")


@pytest.mark.parametrize(
    ("packages", "device", "method", "said"),
    [
        (("peft",), "cpu", "lora", "bitsandbytes is not installed"),
        (("bitsandbytes",), "cpu", "full", "peft is not installed"),
        ((), "cpu", "full", "peft is not installed"),
        (("peft", "bitsandbytes"), "mps", "lora", "no four-bit weights on mps"),
    ],
)
def test_fallbacks_say_why_in_one_line(
    installed: Callable[..., None], packages: tuple[str, ...], device: str, method: str, said: str
) -> None:
    installed(*packages)
    made = choose_method({**UNSAID, "pipeline": "simple"}, device)
    assert made.method == method
    (note,) = made.notes
    assert said in note and "\n" not in note


def test_a_named_method_is_never_replaced(installed: Callable[..., None]) -> None:
    installed()
    assert choose_method({**UNSAID, "method": "qlora"}, "cpu") == choice.Choice("qlora")


def test_four_bits_on_this_machine() -> None:
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    assert why_not_qlora("cpu") == ""
    assert not choice._can_quantise("meta")


def test_devices() -> None:
    assert checked_device("cpu", 4) == ("cpu", "")
    assert checked_device("auto", 1)[0] in ("cpu", "cuda", "mps")
    with pytest.raises(InputError, match="no device called 'gpu'"):
        checked_device("gpu", 1, or_cpu=True)
    with pytest.raises(SetupError, match="no hpu device"):
        checked_device("hpu", 1)


@pytest.mark.parametrize(("wanted", "processes"), [("cuda:2", 1), ("cuda", 3)])
def test_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch, wanted: str, processes: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert checked_device("cuda:1", 2) == ("cuda:1", "")
    with pytest.raises(SetupError, match=r"2 CUDA device\(s\), not 3"):
        checked_device(wanted, processes)
    device, note = checked_device(wanted, processes, or_cpu=True)
    assert device == "cpu" and note.endswith("the CPU trains, which takes longer")

"""A base takes a chat template: its files and weights, against transformers' own resize, tokenizer and rendering."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ilab.artifacts import Checkpoint
from ilab.core.step import Found
from ilab.errors import InputError, SetupError
from ilab.models.renderer import Renderer
from ilab.models.templates import named_template
from ilab.models.templates.adopt import plan_adoption
from ilab.training.base import NONE, TINY, check_template, find_base, find_template, make_base
from ilab.training.vocabulary import write_vocabulary

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How many locks?"},
    {"role": "assistant", "content": "14."},
]


@pytest.fixture
def bare(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the tiny model that never saw a conversation, as its authors might publish it."""

    def make(*, tied: bool = True, padding: int = 0, shards: bool = False, dtype: Any = torch.float32) -> Path:
        folder = tmp_path / "bare"
        rows = json.loads((tiny_model / "config.json").read_text())["vocab_size"] + padding
        config = LlamaConfig.from_pretrained(tiny_model, vocab_size=rows, tie_word_embeddings=tied)
        torch.manual_seed(1)
        model = LlamaForCausalLM(config).to(dtype)
        model.save_pretrained(folder, max_shard_size="20KB" if shards else "5GB")
        shutil.copy(tiny_model / "tokenizer.json", folder)
        (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
        (folder / "special_tokens_map.json").write_text('{"eos_token": "<|end|>"}')
        (folder / "merges.txt").write_text("#version: 0.2\n")
        return folder

    return make


def made(folder: Path, out: Path, choice: str = "") -> tuple[Path, dict[str, int]]:
    template = find_template(choice, folder) if choice else None
    out.mkdir(exist_ok=True)
    given = (template.digest, template) if template else None
    counts = make_base(find_base(str(folder), Path()), Checkpoint(out), given)
    return Checkpoint(out).model, counts


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", [True, False])
def test_new_tokens_have_rows_and_the_rest_is_as_it_was(
    bare: Callable[..., Path], tmp_path: Path, tied: bool, shards: bool
) -> None:
    folder = bare(tied=tied, shards=shards, dtype=torch.bfloat16)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    model, counts = made(folder, tmp_path / "out", "granite")
    assert counts["new_tokens"] == 3
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before, "linked files stay as they are"
    old = AutoModelForCausalLM.from_pretrained(folder)
    new = AutoModelForCausalLM.from_pretrained(model)
    rows = old.config.vocab_size
    assert new.config.vocab_size == rows + 3 and new.dtype == torch.bfloat16
    ids = torch.tensor([[9, 40, 80]])
    assert torch.equal(new(ids).logits[..., :rows], old(ids).logits)
    reference = AutoModelForCausalLM.from_pretrained(folder)
    reference.resize_token_embeddings(rows + 3, mean_resizing=False)
    assert [tuple(one.shape) for one in new.parameters()] == [tuple(one.shape) for one in reference.parameters()]
    for embeddings in (new.get_input_embeddings(), new.get_output_embeddings()):
        weight = embeddings.weight
        mean = weight[:rows].double().mean(0).to(torch.bfloat16)
        assert torch.equal(weight[rows:], mean.expand(3, -1))
    kept = {name: one for name, one in old.state_dict().items() if "embed" not in name and "lm_head" not in name}
    assert kept and all(torch.equal(new.state_dict()[name], one) for name, one in kept.items())
    if shards:
        index = json.loads((model / "model.safetensors.index.json").read_text())
        sizes = [one.numel() * 2 for file in model.glob("*.safetensors") for one in load_file(file).values()]
        assert index["metadata"]["total_size"] == sum(sizes)


def test_every_reader_of_the_folder_gets_the_same_template(bare: Callable[..., Path], tmp_path: Path) -> None:
    model, _ = made(bare(), tmp_path / "out", "granite")
    tokenizer, renderer = AutoTokenizer.from_pretrained(model), Renderer.load(model)
    assert tokenizer.eos_token == "<|end_of_text|>" and "<|start_of_role|>" in tokenizer.get_vocab()
    ids = tokenizer.apply_chat_template(TURNS, return_dict=True)["input_ids"]
    assert ids == renderer.encode(TURNS, "assistant").ids
    assert tokenizer.decode(ids).endswith("<|start_of_role|>assistant<|end_of_role|>14.<|end_of_text|>\n")
    assert not {"special_tokens_map.json", "merges.txt"} & {file.name for file in model.iterdir()}
    ends = AutoModelForCausalLM.from_pretrained(model).generation_config.eos_token_id
    assert renderer.stop_ids == set(ends) and tokenizer.eos_token_id == ends[0]
    assert json.loads((tmp_path / "out" / "choice.json").read_text())["chat_template"].startswith("granite ")


def test_padding_behind_the_vocabulary_is_used_first(bare: Callable[..., Path], tmp_path: Path) -> None:
    folder = bare(padding=8)
    model, counts = made(folder, tmp_path / "out", "qwen")
    old, new = (load_file(place / "model.safetensors")["model.embed_tokens.weight"] for place in (folder, model))
    assert counts["new_tokens"] == 2 and old.shape == new.shape
    known = len(old) - 8
    assert torch.equal(new[:known], old[:known]) and torch.equal(new[known + 2 :], old[known + 2 :])
    assert torch.allclose(new[known], old[:known].mean(0), atol=1e-6) and torch.equal(new[known], new[known + 1])


def test_a_fitting_template_is_written_without_being_asked_for(bare: Callable[..., Path], tmp_path: Path) -> None:
    first, _ = made(bare(), tmp_path / "first", "chatml")
    (first / "chat_template.jinja").unlink()
    again, counts = made(first, tmp_path / "again")
    assert counts["new_tokens"] == 0
    assert Renderer.load(again).template_name == Renderer.load(first).template_name
    assert (again / "chat_template.jinja").is_file()
    assert (again / "model.safetensors").samefile(first / "model.safetensors"), "weights are not touched"
    as_it_is, _ = made(first, tmp_path / "plain", NONE)
    assert not (as_it_is / "chat_template.jinja").exists()


def test_a_model_with_a_template_keeps_it_unless_told(tiny_model: Path, tmp_path: Path) -> None:
    kept, counts = made(tiny_model, tmp_path / "kept")
    assert (kept / "chat_template.jinja").read_text() == (tiny_model / "chat_template.jinja").read_text()
    assert "new_tokens" not in counts
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m.role + ': ' + m.content + '<|end|>' }}{% endfor %}")
    other, counts = made(tiny_model, tmp_path / "other", str(own))
    assert Renderer.load(other).text(TURNS[1:], False) == "user: How many locks?<|end|>assistant: 14.<|end|>"
    assert counts["new_tokens"] == 0


def test_what_a_template_will_do_is_told_before_anything_is_made(bare: Callable[..., Path], tmp_path: Path) -> None:
    folder = bare()
    base = find_base(str(folder), Path())

    def check(choice: str, method: str = "full") -> list[str]:
        return check_template(base, choice, tmp_path, method)

    with pytest.raises(InputError, match="fit none of the built-in ones") as caught:
        check("")
    assert "granite, llama3, mistral, chatml, instructlab, qwen" in caught.value.hint and NONE in caught.value.hint
    assert check(NONE) == []
    (told,) = check("granite")
    assert told.endswith("3 new tokens: <|start_of_role|>, <|end_of_role|>, <|end_of_text|>")
    with pytest.raises(InputError, match="lora does not learn new tokens, so the tuned model would never stop"):
        check("granite", "lora")
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m.content + '<|end|>' }}{% endfor %}")
    assert check("own.jinja", "lora") == [], "its stop token is there"
    tiny = Found("tiny:0", TINY)
    assert check_template(tiny, "", tmp_path, "lora") == []
    with pytest.raises(InputError, match="never stop"):
        check_template(tiny, "chatml", tmp_path, "qlora")


def test_a_stop_token_without_a_row_of_its_own_can_never_win(bare: Callable[..., Path], tmp_path: Path) -> None:
    """Why an adapter is refused: whatever the hidden state, the mean of some logits is not above all of them."""
    model, _ = made(bare(tied=False), tmp_path / "out", "granite")
    head = load_file(model / "model.safetensors")["lm_head.weight"]
    states = torch.randn(500, head.shape[1], generator=torch.Generator().manual_seed(3)) * 10
    assert int((states @ head.T).argmax(1).max()) < len(head) - 3


def test_a_template_that_changes_before_it_is_used_is_refused(bare: Callable[..., Path], tmp_path: Path) -> None:
    folder, own = bare(), tmp_path / "own.jinja"
    own.write_text("{{ messages[0].content + '<|end|>' }}")
    found = find_template("own.jinja", tmp_path)
    own.write_text("{{ messages[0].content }}")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="the chat template has changed"):
        make_base(find_base(str(folder), Path()), Checkpoint(tmp_path / "out"), (found.digest, found))


def test_weights_that_are_kept_otherwise_are_not_guessed_at(bare: Callable[..., Path]) -> None:
    folder = bare()
    plan = plan_adoption(folder, named_template("granite", folder))
    tensors = load_file(folder / "model.safetensors")
    kept = (folder / "config.json").read_bytes()
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-1].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SetupError, match="keeps its vocabulary in a way that cannot be made larger"):
        write_vocabulary(folder, plan)
    assert (folder / "config.json").read_bytes() == kept
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        write_vocabulary(folder, plan)

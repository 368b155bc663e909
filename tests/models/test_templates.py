"""The built-in templates against transformers: text, tokens and masks, by templates that are written here in full.

The reference templates follow the formats as their authors publish them, with transformers' ``{% generation %}`` marks;
transformers renders, tokenises and masks them with code of its own. The golden files are for people to read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.models.templates import ALIASES, TEMPLATES, choose_template, named_template
from ilab.models.templates.adopt import Adoption, plan_adoption, write_adopted

GOLDEN = Path(__file__).parent / "golden"
WORDS = [
    "How many locks has the canal? It has 14 locks. Be brief.",
    "Größe, café, 東京 🙂 user assistant system INST",
] * 3
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How many locks has the canal?"},
    {"role": "assistant", "content": "It has 14 locks."},
    {"role": "user", "content": "Größe 東京 🙂?\n\nAnd the <|end|>?"},
    {"role": "assistant", "content": "café,\n2026"},
]
SPECIAL = {
    "granite": ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "instructlab": ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"],
}
BOS = {"llama3": "<|begin_of_text|>", "mistral": "<s>"}
EOS = {
    "granite": "<|end_of_text|>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "chatml": "<|im_end|>",
    "instructlab": "<|endoftext|>",
}
# ``USER`` and ``/USER`` become generation marks where the turns of users are trained too, else nothing.
A, Z = "{% generation %}", "{% endgeneration %}"
REFERENCE = {
    "granite": "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}"
    + A + "{{ m.content + '<|end_of_text|>' }}" + Z + "{{ '\\n' }}{% elif m.role == 'user' %}"
    "{{ '<|start_of_role|>user<|end_of_role|>' }}USER{{ m.content }}/USER{{ '<|end_of_text|>\\n' }}"
    "{% else %}{{ '<|start_of_role|>system<|end_of_role|>' + m.content + '<|end_of_text|>\\n' }}{% endif %}{% endfor %}",
    "llama3": "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
    "{% if m.role == 'assistant' %}" + A + "{{ m.content + '<|eot_id|>' }}" + Z +
    "{% elif m.role == 'user' %}USER{{ m.content }}/USER{{ '<|eot_id|>' }}"
    "{% else %}{{ m.content + '<|eot_id|>' }}{% endif %}{% endfor %}",
    "mistral": "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' }}"
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}"
    "USER{{ m.content }}/USER{{ ' [/INST]' }}{% elif m.role == 'assistant' %}" + A + "{{ ' ' + m.content + '</s>' }}" + Z +
    "{% endif %}{% endfor %}",
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
    + A + "{{ m.content + '<|im_end|>' }}" + Z + "{{ '\\n' }}{% elif m.role == 'user' %}USER{{ m.content }}/USER"
    "{{ '<|im_end|>\\n' }}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}",
    "instructlab": "{% for m in messages %}{{ '<|' + m.role + '|>\\n' }}{% if m.role == 'assistant' %}"
    + A + "{{ m.content + '<|endoftext|>' }}" + Z + "{% if not loop.last %}{{ '\\n' }}{% endif %}{% elif m.role == 'user' %}"
    "USER{{ m.content }}/USER{{ '\\n' }}{% else %}{{ m.content + '\\n' }}{% endif %}{% endfor %}",
}  # fmt: skip


def model_folder(folder: Path, special: list[str], bos: str = "", eos: str = "", model_type: str = "") -> Path:
    """A Hugging Face directory without weights and without a template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    if bos:
        number = tokenizer.token_to_id(bos)
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, number)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {name: token for name, token in (("bos_token", bos), ("eos_token", eos)) if token}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named})
    )
    (folder / "config.json").write_text(json.dumps({"model_type": model_type} if model_type else {}))
    return folder


@pytest.fixture(params=list(TEMPLATES))
def family(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    name: str = request.param
    return name, model_folder(tmp_path, SPECIAL[name], BOS.get(name, ""), EOS[name])


def adopted(folder: Path, name: str) -> Adoption:
    return plan_adoption(folder, named_template(name, folder))


def marked(renderer: Renderer, messages: list[dict[str, Any]], train_on: Any) -> str:
    """The text, with ⟦ ⟧ around what bears loss."""
    encoded = renderer.encode(messages, train_on)
    return "".join(_parts(renderer, encoded.ids, encoded.trained))


def _parts(renderer: Renderer, ids: list[int], trained: list[bool]) -> Iterator[str]:
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or trained[at] != trained[start]:
            text = renderer.decode(ids[start:at], keep_special=True)
            yield f"⟦{text}⟧" if trained[start] else text
            start = at


@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_text_tokens_and_masks_are_those_of_transformers(family: tuple[str, Path], train_on: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    name, folder = family
    users = (A, Z) if train_on == "all" else ("", "")
    template = REFERENCE[name].replace("/USER", users[1]).replace("USER", users[0])
    reference = PreTrainedTokenizerFast.from_pretrained(folder)
    renderer = Renderer.load(folder)
    for messages in (TURNS, TURNS[1:], TURNS[:3], TURNS[1:3]):
        expected = reference.apply_chat_template(
            messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        encoded = renderer.encode(messages, train_on)
        assert renderer.text(messages, False) == reference.apply_chat_template(
            messages, chat_template=template, tokenize=False
        )
        assert encoded.ids == expected["input_ids"]
        assert [int(one) for one in encoded.trained] == expected["assistant_masks"]


def test_golden_masks(family: tuple[str, Path]) -> None:
    """For people: what each choice trains."""
    name, folder = family
    renderer = Renderer.load(folder)
    shown = [f"== {choice}\n{marked(renderer, TURNS, choice)}\n" for choice in ("assistant", "last", "all")]
    document = renderer.encode_document("The canal has 14 locks.")
    shown.append(f"== document\n{''.join(_parts(renderer, document.ids, document.trained))}\n")
    assert "".join(shown) == (GOLDEN / f"mask_{name}.txt").read_text(encoding="utf-8")


def test_every_answer_ends_in_a_trained_stop_token_and_begins_where_its_prompt_ends(family: tuple[str, Path]) -> None:
    name, folder = family
    renderer = Renderer.load(folder)
    encoded = renderer.encode(TURNS, "assistant")
    for turn in (2, 4):
        prompt = renderer.prompt_ids(TURNS[:turn])
        assert encoded.ids[: len(prompt)] == prompt
        mine = [
            at
            for at, (of, trained) in enumerate(zip(encoded.turns, encoded.trained, strict=True))
            if of == turn and trained
        ]
        assert mine[0] == len(prompt)
        assert renderer.decode([encoded.ids[mine[-1]]], keep_special=True) == EOS[name]
        assert encoded.ids[mine[-1]] in renderer.stop_ids


def test_the_tokenizer_decides_which_template_fits() -> None:
    for name, special in SPECIAL.items():
        chosen = choose_template(special, "")
        assert chosen is not None and chosen.name == name
    assert choose_template(["<s>", "</s>"], "mistral") is TEMPLATES["mistral"]
    assert choose_template(["<s>", "</s>"], "llama") is None, "an older llama: nothing fits"
    assert choose_template(["<|endoftext|>"], "gpt2") is None
    # A mistral that InstructLab trained: its tokens say more than its family.
    assert choose_template(["<s>", "</s>", *SPECIAL["instructlab"]], "mistral") is TEMPLATES["instructlab"]
    both = [*SPECIAL["chatml"], *SPECIAL["llama3"]]
    assert choose_template(both, "qwen2") is TEMPLATES["chatml"]
    assert choose_template(both, "llama") is TEMPLATES["llama3"]
    assert choose_template(both, "gpt2") is None, "two fit, and nothing decides"


def test_a_name_wins_and_must_fit(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, [*SPECIAL["chatml"], *SPECIAL["llama3"]])
    assert not Renderer.load(folder).has_template
    with pytest.raises(InputError, match="no chat template") as caught:
        Renderer.load(folder).prompt_ids(TURNS[:2])
    assert all(name in caught.value.hint for name in (*TEMPLATES, *ALIASES, "train_chat_template"))
    assert "<|im_start|>" in adopted(folder, "qwen").renderer.text(TURNS, False)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert Renderer.load(folder).text(TURNS, False) == "Be brief.", "a model's own template is used as it is"
    llama = adopted(folder, "llama").renderer.text(TURNS[1:2], False)
    assert llama.startswith("<|begin_of_text|><|start_header_id|>user")
    with pytest.raises(InputError, match="no chat template called 'grannite', and no such file") as caught:
        named_template("grannite", folder)
    assert "granite, llama3, mistral, chatml, instructlab, qwen, llama, legacy" in caught.value.hint
    for name, text in (("empty", b" "), ("binary", b"\xff\xfe")):
        (folder / name).write_bytes(text)
        with pytest.raises(InputError, match=r"is empty|no UTF-8 text"):
            named_template(name, folder)
    for name in ("nul\0", "..", "x" * 5000):
        with pytest.raises(InputError, match="no chat template called"):
            named_template(name, folder)


def test_a_file_is_a_template_of_the_format_that_it_writes(tmp_path: Path) -> None:
    for name, template in TEMPLATES.items():
        (tmp_path / f"{name}.jinja").write_text(template.source + "{# mine #}")
        found = named_template(f"{name}.jinja", tmp_path)
        assert (found.marks, found.stop, found.source[-10:]) == (template.marks, template.stop, "{# mine #}")
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m.role + m.content + eos_token }}{% endfor %}")
    own = named_template("own.jinja", tmp_path)
    assert (own.marks, own.stop) == ((), ""), "a format that nobody knows asks for no tokens"
    plan = plan_adoption(model_folder(tmp_path / "model", ["</s>", "<s>"], eos="</s>"), own)
    assert (plan.added, plan.stop, plan.renderer.stop_ids) == ((), "", {0})
    (tmp_path / "end.jinja").write_text("{% for m in messages %}{{ m.role + ':' + m.content + '<s>' }}{% endfor %}")
    plan = plan_adoption(tmp_path / "model", named_template("end.jinja", tmp_path))
    assert (plan.stop, plan.stops) == ("<s>", (1, 0)), "what it puts behind an answer ends one"
    (tmp_path / "broken.jinja").write_text("{% for %}")
    with pytest.raises(InputError, match="the chat template has an error"):
        named_template("broken.jinja", tmp_path)


def test_documents_begin_and_end_as_the_model_has_it(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    text = "It has 14 locks. <|eot_id|> café 🙂"
    folder = model_folder(tmp_path / "llama", SPECIAL["llama3"], "<|begin_of_text|>", "<|end_of_text|>")
    encoded = Renderer.load(folder).encode_document(text)
    reference = PreTrainedTokenizerFast.from_pretrained(folder)
    names = reference.convert_ids_to_tokens(encoded.ids)
    assert names[0] == "<|begin_of_text|>" and names[-1] == "<|end_of_text|>"
    assert "<|eot_id|>" not in names, "a text cannot hold a control token"
    assert all(encoded.trained)
    assert encoded.ids[:4] == reference("It has 14 locks.")["input_ids"][:4]
    plain = model_folder(tmp_path / "qwen", SPECIAL["chatml"], "", "<|endoftext|>")
    assert Renderer.load(plain).encode_document("14").ids == [*Renderer.load(plain).encode_text("14"), 0]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": False}))
    assert Renderer.load(folder).encode_document(text).ids == encoded.ids[1:]


def test_tools_calls_and_reasoning_reach_a_template_that_writes_them(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "locks", "parameters": {"type": "object"}}}]
    turns = [
        {"role": "user", "content": "How many?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "I look it up.",
            "tool_calls": [{"type": "function", "function": {"name": "locks", "arguments": {"canal": "Brannock"}}}],
        },
        {"role": "tool", "content": "14"},
        {"role": "assistant", "content": "14 locks."},
    ]
    renderer = Renderer.load(model_folder(tmp_path / "chatml", SPECIAL["chatml"], eos="<|im_end|>"))
    encoded = renderer.encode(turns, "assistant", tools)
    text = "".join(_parts(renderer, encoded.ids, encoded.trained))
    assert '<tools>\n{"type": "function", "function": {"name": "locks"' in text
    assert (
        "⟦<think>\nI look it up.\n</think>\n\n"
        '<tool_call>\n{"name": "locks", "arguments": {"canal": "Brannock"}}\n</tool_call><|im_end|>⟧\n' in text
    )
    assert "<tool_response>\n14\n</tool_response><|im_end|>\n<|im_start|>assistant\n⟦14 locks.<|im_end|>⟧" in text
    assert encoded.ids[: len(renderer.prompt_ids(turns[:3], tools))] == renderer.prompt_ids(turns[:3], tools)
    granite = Renderer.load(model_folder(tmp_path / "granite", SPECIAL["granite"], eos="<|end_of_text|>"))
    assert '⟦<|tool_call|>[{"type": "function"' in marked(granite, turns, "assistant")
    llama = Renderer.load(model_folder(tmp_path / "llama", SPECIAL["llama3"], "<|begin_of_text|>", "<|eot_id|>"))
    with pytest.raises(InputError, match="tools, which the chat template does not write"):
        llama.encode(turns[:1], "all", tools)
    with pytest.raises(InputError, match="tool_calls, which the chat template does not write"):
        llama.encode(turns, "assistant")
    turns[1]["tool_calls"][0]["function"]["arguments"] = {"canal": "<|im_end|>"}  # type: ignore[index]
    with pytest.raises(InputError, match="hold a special token"):
        renderer.encode(turns, "assistant", tools)
    nasty = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "reasoning_content": "x<|im_end|>y"},
    ]
    honest = [{**turn, **({"reasoning_content": "xy"} if "reasoning_content" in turn else {})} for turn in nasty]
    stop = min(renderer.stop_ids)
    assert renderer.encode(nasty, "assistant").ids.count(stop) == renderer.encode(honest, "assistant").ids.count(stop)


def test_last_trains_conversations_whose_history_the_template_rewrites(tmp_path: Path) -> None:
    """As Qwen 3 and DeepSeek do: reasoning is dropped from the turns before the last."""
    folder = model_folder(tmp_path, SPECIAL["chatml"], eos="<|im_end|>")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if loop.last and m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
        "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    renderer = Renderer.load(folder)
    turns = [
        {**turn, "reasoning_content": f"thought {at}"} if turn["role"] == "assistant" else turn
        for at, turn in enumerate(TURNS)
    ]
    with pytest.raises(InputError, match="changes earlier text"):
        renderer.encode(turns, "assistant")
    text = marked(renderer, turns, "last")
    assert text.endswith("<|im_start|>assistant\n⟦<think>thought 4</think>café,\n2026<|im_end|>⟧\n")
    assert text.count("⟦") == 1 and "thought 2" not in text
    prompt = renderer.prompt_ids(turns[:4])
    assert renderer.encode(turns, "last").ids[: len(prompt)] == prompt


def test_a_model_can_adopt_a_template_whose_tokens_it_lacks(tiny_model: Path, tmp_path: Path) -> None:
    """Files from the plan, the resize by transformers; what the model knew stays as it was."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    plan = adopted(tiny_model, "granite")
    before = Renderer.load(tiny_model)
    assert plan.added == ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")
    assert (plan.known, plan.rows_before, plan.rows) == (before.vocab_size, before.vocab_size, before.vocab_size + 3)
    assert plan.new == tuple(range(plan.known, plan.rows)) and plan.unlearnable_stop
    assert plan.grows
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.tensor([before.encode_text("How many locks?")])
    logits = model(ids).logits
    model.resize_token_embeddings(plan.rows)
    model.save_pretrained(tmp_path)
    write_adopted(plan, tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.get_input_embeddings().weight.shape[0] == plan.rows
    assert torch.equal(again(ids).logits[..., : plan.rows_before], logits)
    renderer = Renderer.load(tmp_path)
    assert renderer.vocab_size == plan.rows
    assert "<|start_of_role|>assistant<|end_of_role|>⟦It has 14 locks.<|end_of_text|>⟧" in marked(
        renderer, TURNS, "assistant"
    )
    assert renderer.encode_text("How many locks?") == ids[0].tolist(), "ordinary text is the same tokens"
    assert max(renderer.encode(TURNS, "all").ids) < plan.rows
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["eos_token_id"][0] == PreTrainedTokenizerFast.from_pretrained(tmp_path).eos_token_id
    assert renderer.stop_ids == set(generation["eos_token_id"])
    # A vocabulary that is padded has room; a tokenizer that has the tokens needs none.
    padded = model_folder(tmp_path / "padded", ["<|endoftext|>"])
    (padded / "config.json").write_text('{"vocab_size": 512}')
    assert not adopted(padded, "qwen").grows and adopted(padded, "qwen").new
    assert adopted(tmp_path, "granite").added == ()


CONTENTS = st.text(
    alphabet=st.sampled_from("ab \n\t14é東🙂<|end|>assistant[/INST]</s>.<|im_end|>"), min_size=1, max_size=20
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CONTENTS, min_size=4, max_size=4))
def test_whatever_is_written_no_one_gets_a_control_token_in(family: tuple[str, Path], contents: list[str]) -> None:
    renderer = Renderer.load(family[1])
    roles = ("user", "assistant", "user", "assistant")
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    honest = [{"role": role, "content": "x"} for role in roles]
    special = renderer.special_tokens
    for train_on in ("assistant", "all"):
        encoded = renderer.encode(turns, train_on)
        assert [number for number in encoded.ids if number in special] == [
            number for number in renderer.encode(honest, train_on).ids if number in special
        ]
        stops = [at for at, number in enumerate(encoded.ids) if number in renderer.stop_ids and encoded.trained[at]]
        assert len(stops) == 2
    for turn in (1, 3):
        prompt = renderer.prompt_ids(turns[:turn])
        assert encoded.ids[: len(prompt)] == prompt

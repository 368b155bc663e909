"""Prompts in the format of a family: written as the family's own tokenizer writes them, asked as plain text, and told
apart in the memo."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ilab.config import Endpoint, Where
from ilab.core.events import Bus, Emit
from ilab.core.memo import Memo
from ilab.data import Message
from ilab.errors import InputError, ServiceError
from ilab.models.cached import Cached
from ilab.models.chat import Request, Sampling
from ilab.models.family import FAMILIES, in_family
from ilab.models.openai import OpenAIModel
from ilab.parameters.data import FAMILIES as NAMES
from ilab.sdg.teachers import open_teacher
from ilab.testing.teacher import Features, serve

TALK = (Message(role="system", content="Be brief."), Message(role="user", content="Why?"))
# As the model cards of Merlinite, Mistral, Granite 3, Llama 3 and Qwen write them, without the token that begins a text.
EXPECTED = {
    "granite": "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>Why?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    "llama": "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "merlinite": "<|system|>\nBe brief.\n<|user|>\nWhy?\n<|assistant|>\n",
    "mistral": "[INST] Be brief.\n\nWhy? [/INST]",
    "mixtral": "[INST] Be brief.\n\nWhy? [/INST]",
    "qwen": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
}


def test_all_families_have_a_format() -> None:
    assert tuple(sorted(FAMILIES)) == NAMES == tuple(sorted(EXPECTED))


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_those_of_the_model_cards(family: str) -> None:
    made = in_family(Request("m", TALK, Sampling(stop=("###",))), family)
    assert made.prompt == EXPECTED[family]
    assert made.messages == ()
    assert made.sampling.stop[0] == "###" and len(made.sampling.stop) == 2
    assert in_family(made, "llama") is made, "a plain prompt stays as it is"


def ask(url: str, memo: Path, *families: str) -> list[str]:
    async def run() -> list[str]:
        texts = []
        for family in families:
            model = OpenAIModel(Endpoint(url=url, api="completions" if family else "auto"), backoff=0.02)
            kept = Memo(memo)
            try:
                reply = await Cached(model, kept, family).complete(Request("teacher", TALK, Sampling(max_tokens=9)))
            finally:
                await model.close()
                kept.close()
            texts.append(reply.text)
        return texts

    return asyncio.run(run())


def test_a_family_is_asked_by_plain_text_and_is_another_question(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> str:
        return body.get("prompt") or "chat"

    with serve(script) as teacher:
        texts = ask(teacher.url, tmp_path, "", "qwen", "mistral", "qwen", "")
        assert texts == ["chat", EXPECTED["qwen"], EXPECTED["mistral"], EXPECTED["qwen"], "chat"]
        assert len(teacher.calls) == 3, "an answer is kept for its own format alone"
        assert teacher.calls[1]["stop"] == ["<|im_end|>"]


def test_a_server_without_plain_prompts_is_refused_before_anything_is_asked() -> None:
    with serve(features=Features(completions=False)) as teacher:
        where = Where(teacher=Endpoint(url=teacher.url))
        bus = Bus()
        model = open_teacher(where, (), "teacher", 1, Emit(bus, "generate"), "qwen")
        assert model is not None

        async def admit() -> None:
            try:
                await model.admit(in_family(Request("teacher", TALK), "qwen"))
            finally:
                await model.close()

        with pytest.raises(ServiceError, match="completions of plain text"):
            asyncio.run(admit())


def test_chat_alone_and_a_family_exclude_each_other() -> None:
    where = Where(teacher=Endpoint(url="http://127.0.0.1:1/v1", api="chat"))
    with pytest.raises(InputError, match=r"where\.teacher\.api is chat"):
        open_teacher(where, (), "teacher", 1, Emit(Bus(), "generate"), "qwen")

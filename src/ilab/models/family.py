"""Prompts in the format of a model's family, for teachers that are asked by plain text.

A server with a chat interface knows its model's format, and nothing here is needed. Where a family is named, each
conversation is written out in its format and sent to ``/completions``, as InstructLab's ``--model-family`` did. The
prompt is the request then: another family is another question, in the memo too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ilab.models.chat import Request
from ilab.models.chat_template import ChatTemplate
from ilab.models.templates import TEMPLATES

FAMILIES = {  # family: one of ilab.models.templates
    "granite": "granite",
    "llama": "llama3",
    "merlinite": "instructlab",
    "mistral": "mistral",
    "mixtral": "mistral",
    "qwen": "chatml",
}
FIRST = ("<s>", "<|begin_of_text|>")  # what begins a text: the server's tokenizer writes it


def in_family(request: Request, family: str) -> Request:
    """``request`` as a plain prompt of ``family``, whose stop token ends the answer. A plain one stays as it is.

    Raises ``InputError`` for a conversation that the format has no words for.
    """
    if request.prompt is not None:
        return request
    told = [{"role": message.role, "content": message.content} for message in request.messages]
    prompt = _template(family).render(told, True)
    for token in FIRST:
        prompt = prompt.removeprefix(token)
    stop = TEMPLATES[FAMILIES[family]].stop
    sampling = replace(request.sampling, stop=tuple(dict.fromkeys((*request.sampling.stop, stop))))
    return Request(request.model, (), sampling, prompt=prompt)


@cache
def _template(family: str) -> ChatTemplate:
    return ChatTemplate(TEMPLATES[FAMILIES[family]].source, {}, f"the prompt format of {family}")

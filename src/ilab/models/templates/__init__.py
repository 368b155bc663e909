"""Chat templates for models that bring none: of our own writing, or a file that somebody gives.

    granite      <|start_of_role|>user<|end_of_role|>…<|end_of_text|>
    llama3       <|start_header_id|>user<|end_header_id|>…<|eot_id|>
    mistral      [INST] … [/INST] …</s>
    chatml       <|im_start|>user … <|im_end|>                       (also called qwen)
    instructlab  <|user|> … <|assistant|> …<|endoftext|>             the models of the first InstructLab

The tokenizer decides: a template fits where all its *marks*, the tokens that only its format has, are special tokens.
Where several fit, or where marks may be plain text (mistral), the family named in config.json (``model_type``)
decides. Nothing is guessed beyond that. A file that writes the marks and the stop token of one of these formats is a
template of that format: it needs the same special tokens (:mod:`ilab.models.templates.adopt` adds them).

All of ours only grow as a conversation goes on, so every prompt is a prefix of its training row, and each answer ends
with a special token.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from ilab.errors import InputError

ALIASES = {"qwen": "chatml", "llama": "llama3", "legacy": "instructlab"}
CHOICE = "train_chat_template"  # the parameter that names one
TALK = tuple({"role": role, "content": "a"} for role in ("system", "user", "assistant"))
GIVEN = "given"  # what one is called that is no built-in


@dataclass(frozen=True)
class Template:
    """One format. ``stop`` is the token after an answer; ``families`` are values of config.json's ``model_type``."""

    name: str
    marks: tuple[str, ...]
    stop: str
    families: tuple[str, ...]
    plain_marks: bool = False  # the marks may be ordinary text in this format
    given: str = ""  # the text of one that is no built-in; of a format that is unknown, it has neither marks nor stop

    @property
    def source(self) -> str:
        """The Jinja text."""
        return self.given or _source(self.name)

    def missing(self, special: Collection[str]) -> list[str]:
        """The special tokens that this format cannot do without and that are not in ``special``."""
        needed = (self.stop,) if self.plain_marks else (*self.marks, self.stop)
        return [token for token in dict.fromkeys(needed) if token and token not in special]


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template(
            "granite",
            ("<|start_of_role|>", "<|end_of_role|>"),
            "<|end_of_text|>",
            ("granite", "granitemoe", "granitemoeshared", "granitemoehybrid"),
        ),
        Template("llama3", ("<|start_header_id|>", "<|end_header_id|>"), "<|eot_id|>", ("llama",)),
        Template("mistral", ("[INST]", "[/INST]"), "</s>", ("mistral", "mixtral", "ministral"), plain_marks=True),
        Template("chatml", ("<|im_start|>", "<|im_end|>"), "<|im_end|>", ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")),
        Template("instructlab", ("<|system|>", "<|user|>", "<|assistant|>"), "<|endoftext|>", ("gpt_megatron",)),
    )
}

NAMES = ", ".join([*TEMPLATES, *ALIASES])


@cache
def _source(name: str) -> str:
    return (resources.files("ilab.models.templates") / f"{name}.jinja").read_text(encoding="utf-8")


def choose_template(special: Collection[str], model_type: str) -> Template | None:
    """The format that fits a tokenizer's ``special`` tokens and the model's family; None where none does.

    A family alone is enough only where its marks may be plain text.
    """
    marked = [one for one in TEMPLATES.values() if not one.missing(special) and set(one.marks) <= set(special)]
    of_family = [one for one in TEMPLATES.values() if model_type in one.families and not one.missing(special)]
    if len(marked) == 1:
        return marked[0]
    both = [one for one in marked if one in of_family]
    if both or marked:
        return both[0] if both else None
    return of_family[0] if of_family else None


def named_template(name: str, folder: Path) -> Template:
    """The built-in template called ``name``, or the one in the file ``name``, relative to ``folder``.

    Raises InputError for a name that is neither, and for a file that is no text.
    """
    template = TEMPLATES.get(ALIASES.get(name, name))
    if template is not None:
        return template
    path = folder / Path(name).expanduser()
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("this chat template is no UTF-8 text", where=str(path)) from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(
            f"there is no chat template called {name!r}, and no such file",
            where=CHOICE,
            hint=f"known: {NAMES}; or a file with the template's Jinja text",
        ) from error
    if not source.strip():
        raise InputError("this chat template is empty", where=str(path), hint=f"known by name: {NAMES}")
    formats = [one for one in TEMPLATES.values() if _writes(source, one, str(path))]
    if len(formats) == 1:
        return replace(formats[0], name=GIVEN, given=source)
    return Template(GIVEN, (), "", (), given=source)


def _writes(source: str, template: Template, where: str) -> bool:
    """Whether the Jinja text ``source`` writes a conversation with the marks and the stop token of ``template``."""
    from ilab.models.chat_template import ChatTemplate

    compiled = ChatTemplate(source, {"eos_token": template.stop}, where)
    for turns in (TALK, TALK[1:]):
        try:
            text = compiled.render(turns, False)
        except InputError:  # some refuse a system message
            continue
        return all(token in text for token in (*template.marks, template.stop))
    return False

"""Chat templates of our own writing, for models that bring none.

    granite      <|start_of_role|>user<|end_of_role|>…<|end_of_text|>
    llama3       <|start_header_id|>user<|end_header_id|>…<|eot_id|>
    mistral      [INST] … [/INST] …</s>
    chatml       <|im_start|>user … <|im_end|>                       (also called qwen)
    instructlab  <|user|> … <|assistant|> …<|endoftext|>             the models of the first InstructLab

The tokenizer decides: a template fits where all its *marks*, the tokens that only its format has, are special tokens.
Where several fit, or where marks may be plain text (mistral), the family named in config.json (``model_type``)
decides. Nothing is guessed beyond that. All of them only grow as a conversation goes on, so every prompt is a prefix of
its training row, and each answer ends with a special token.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ilab.errors import InputError

ALIASES = {"qwen": "chatml", "llama": "llama3", "legacy": "instructlab"}


@dataclass(frozen=True)
class Template:
    """One format. ``stop`` is the token after an answer; ``families`` are values of config.json's ``model_type``."""

    name: str
    marks: tuple[str, ...]
    stop: str
    families: tuple[str, ...]
    plain_marks: bool = False  # the marks may be ordinary text in this format

    @property
    def source(self) -> str:
        """The Jinja text."""
        return _source(self.name)

    def missing(self, special: Collection[str]) -> list[str]:
        """The special tokens that this format cannot do without and that are not in ``special``."""
        needed = (self.stop,) if self.plain_marks else (*self.marks, self.stop)
        return [token for token in dict.fromkeys(needed) if token not in special]


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


def named_template(name: str, special: Collection[str], where: str) -> Template:
    """The template called ``name``. Raises InputError for an unknown name, or where its tokens are missing."""
    template = TEMPLATES.get(ALIASES.get(name, name))
    if template is None:
        raise InputError(
            f"there is no chat template called {name!r}", hint=f"known: {', '.join([*TEMPLATES, *ALIASES])}"
        )
    missing = template.missing(special)
    if missing:
        raise InputError(
            f"the chat template {template.name} needs special tokens that this tokenizer lacks: {', '.join(missing)}",
            where=where,
            hint="take a template whose tokens it has; adding them makes the model's embeddings grow",
        )
    return template

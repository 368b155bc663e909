"""Which chat template a model is served with.

(nothing)    the model's own; where it has none, the built-in one that its special tokens name
auto         the built-in one of its family, in place of its own
tokenizer    the model's own, or none
FILE         that file's
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ilab.errors import InputError
from ilab.models.templates import ALIASES, TEMPLATES, choose_template, named_template

FAMILIES = {"merlinite": "instructlab", "mixtral": "mistral"}  # InstructLab's names for templates that are here
REPLACING = "Replacing chat template:"  # these words are looked for by scripts


def check_template(choice: str, family: str) -> None:
    """Raises ``InputError`` for a family or a file that is not there, before a model is loaded for it."""
    if choice not in ("", "tokenizer", "auto"):
        _from_file(choice)
    elif choice == "auto" and family:
        _of_family(family)


def template_for(
    choice: str, family: str, special: Collection[str], model_type: str, say: Callable[[str], None]
) -> str | None:
    """The text of the template that replaces the model's own; None where its own stays.

    ``special`` are the model's special tokens. Raises ``InputError`` for a family or a file that is not there.
    """
    if choice in ("", "tokenizer"):
        return None
    if choice != "auto":
        source = _from_file(choice)
    elif family:
        source = _of_family(family)
    else:
        fitting = choose_template(special, model_type)
        if fitting is None:
            say("no built-in chat template fits this model, so it keeps its own")
            return None
        source = fitting.source
    say(f"{REPLACING}\n{source}")
    return source


def _of_family(family: str) -> str:
    name = FAMILIES.get(family, family)
    template = TEMPLATES.get(ALIASES.get(name, name))
    if template is None:
        known = ", ".join(sorted({*TEMPLATES, *ALIASES, *FAMILIES}))
        raise InputError(f"there is no family {family!r}", where="--model-family", hint=f"known: {known}")
    return template.source


def _from_file(choice: str) -> str:
    path = Path(choice).expanduser()
    if not path.is_file():
        raise InputError(
            f"there is no chat template {choice!r}", where="--chat-template", hint="auto, tokenizer, or a file"
        )
    return named_template(str(path), Path()).source

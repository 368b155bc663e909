"""A model's own chat template: found in its folder, compiled in a sandbox, rendered.

It is compiled as transformers compiles chat templates (``trim_blocks``, ``lstrip_blocks``, ``tojson``,
``raise_exception``, loop controls, ``{% generation %}``), less whatever is not a function of the conversation: the
clock (``strftime_now``) and Jinja's random text. Templates that use the date only where it is defined still work.
Undefined names are lenient, in chat templates only: published templates test fields that plain messages lack.
A model without a template is given one of ours (:mod:`ilab.models.templates`) where its special tokens say which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ilab.errors import InputError
from ilab.models.templates import CHOICE, NAMES

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTemplate:
    """A compiled template. ``named`` maps ``bos_token`` … to their text; ``where`` names it in errors.

    ``add_bos`` is tokenizer_config.json's ``add_bos_token``: whether plain text begins with one; None where not said.
    """

    def __init__(self, source: str | None, named: Mapping[str, str], where: str, add_bos: bool | None = None) -> None:
        """``source`` is None for a model without a template: rendering then raises ``InputError``."""
        self.source = source
        self.named = dict(named)
        self.where = where
        self.add_bos = add_bos
        self._compiled = None if source is None else _compile(source, where)

    @classmethod
    def load(cls, model_dir: Path) -> ChatTemplate:
        """The template of a Hugging Face directory: chat_template.jinja, else tokenizer_config.json (of a list,
        ``default``). Raises ``InputError`` where either cannot be read."""
        settings = json_object(model_dir / "tokenizer_config.json")
        named = {name: text for name in _NAMED_TOKENS if (text := _token_text(settings.get(name)))}
        said = settings.get("add_bos_token")
        add_bos = said if isinstance(said, bool) else None
        path = model_dir / "chat_template.jinja"
        if path.is_file():
            return cls(path.read_text(encoding="utf-8"), named, str(path), add_bos)
        source = settings.get("chat_template")
        if isinstance(source, list):
            source = {e.get("name"): e.get("template") for e in source if isinstance(e, dict)}.get("default")
        where = str(model_dir / "tokenizer_config.json")
        return cls(source if isinstance(source, str) else None, named, where, add_bos)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChatTemplate, (self.source, self.named, self.where, self.add_bos)

    def uses(self, field: str) -> bool:
        """Whether the template mentions ``field`` (``tools``, ``reasoning_content``) at all."""
        return field in (self.source or "")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as text. Raises ``InputError`` where the template refuses it."""
        if self._compiled is None:
            raise InputError(
                "this model has no chat template, and its special tokens fit none of the built-in ones",
                where=self.where,
                hint=f"train it with one ({NAMES}, or a file: -p {CHOICE}=NAME), or put a chat_template.jinja beside "
                "its tokenizer.json",
            )
        try:
            return self._compiled.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=[dict(tool) for tool in tools] if tools else None,
                documents=None,
                **self.named,
            )
        # A template is a program of the model's author: it may fail in any of these ways.
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            RecursionError,
        ) as error:
            roles = ", ".join(str(message["role"]) for message in messages) or "none"
            raise InputError(
                f"the chat template refuses this conversation: {error}",
                where=self.where,
                hint=f"the roles were: {roles}; templates that must have today's date (strftime_now) are refused",
            ) from error


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``, empty where there is no such file. Raises ``InputError`` for anything else."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"this file is not JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise InputError("this file should hold a JSON object", where=str(path))
    return value


def _token_text(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text in some templates; it renders its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Jinja's namespace without underscored names, which could reach into Python."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"the name {name!r} is refused")
        super().__setitem__(name, value)


def _compile(template: str, where: str) -> jinja2.Template:
    """As transformers compiles chat templates, without the clock and jinja2's random text."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    builtin = environment.globals
    environment.globals = {
        "range": builtin["range"],
        "dict": dict,
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
    }
    environment.filters["tojson"] = _tojson
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise InputError(
            f"the chat template has an error: {error}", where=where, hint="mend the template, or use another model"
        ) from error


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

"""Prompt files: Jinja text in a sandbox. A flow may come from anywhere, so its templates get no way out.

Templates see the row's columns and nothing else: no attributes with underscores, no changing of values, no files,
no includes. A variable that no column provides is found when the flow is loaded, not on the thousandth row.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ilab.errors import InputError

LONGEST = 1_000_000  # characters of a rendered prompt; far beyond any model, well before memory
ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
    autoescape=False,
)


def variables(text: str, where: str) -> frozenset[str]:
    """The variables that a template reads. Raises ``InputError`` for bad syntax, with its line."""
    try:
        return frozenset(meta.find_undeclared_variables(ENVIRONMENT.parse(text)))
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"the template cannot be read: {error.message}", where=f"{where}:{error.lineno}") from error


def render(text: str, columns: Mapping[str, Any], where: str) -> str:
    """``text`` with ``columns`` filled in. Raises ``InputError`` when the template fails or reaches for too
    much.
    """
    parts: list[str] = []
    length = 0
    try:
        for part in _template(text).generate(columns):
            length += len(part)
            if length > LONGEST:
                raise InputError(f"the prompt grows beyond {LONGEST} characters", where=where)
            parts.append(part)
    except SecurityError as error:
        raise InputError(f"the template may not do this: {error}", where=where) from error
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"the template fails: {error}", where=where) from error
    return "".join(parts).strip()


@lru_cache(maxsize=64)
def _template(text: str) -> jinja2.Template:
    template = ENVIRONMENT.from_string(text)
    template.globals = dict(template.globals)  # a chain of mappings, walked for every prompt otherwise
    return template

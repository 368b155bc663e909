"""Task files in lm-evaluation-harness' form, as data: YAML read safely, files looked for beside it, nothing executed.

``include`` is followed within the task's own folder. ``!function`` names Python code: it is kept as :class:`Code`, so
that whoever needs the field can say that such a task is not read here. Files of questions are taken from the folder of
the task alone: the absolute paths in tasks of another machine become names beside the file, and a task from elsewhere
reads nothing else of this machine.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ilab.errors import InputError

INCLUDES = 8  # files that may include one another
LONGEST = 1_000_000  # characters of a rendered text


class NotNative(InputError):
    """The task needs something that only lm-evaluation-harness itself can do."""


@dataclass(frozen=True)
class Code:
    """``!function module.name``: Python code that a task refers to. Never imported here."""

    name: str


class _Loader(yaml.SafeLoader):
    """YAML without Python objects; ``!function`` is a name."""


_Loader.add_constructor("!function", lambda loader, node: Code(str(node.value)))


def read_yaml(path: Path, depth: int = 0) -> dict[str, Any]:
    """The mapping in ``path``, over those that it includes. Raises ``InputError`` with file and line."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"not YAML: {getattr(error, 'problem', error)}", where=where) from error
    if not isinstance(content, dict):
        raise InputError("a task is a mapping", where=str(path))
    named = content.pop("include", None)
    merged: dict[str, Any] = {}
    for name in named if isinstance(named, list) else [named] if named else []:
        file = path.parent / Path(str(name)).name
        if depth >= INCLUDES or not file.is_file():
            what = "includes go round in a circle" if depth >= INCLUDES else f"there is no {file.name} beside it"
            raise InputError(what, where=str(path), hint="include names a file in the task's own folder")
        merged |= read_yaml(file, depth + 1)
    return merged | content


def split_file(task: Mapping[str, Any], split: str, path: Path) -> Path:
    """The file of a task's ``split``, in the folder of the task file ``path``.

    Raises ``NotNative`` where the questions are no local file, ``InputError`` where the file is not there.
    """
    if task.get("dataset_path") not in ("json", "csv", "parquet"):
        raise NotNative(f"the questions are the data set {task.get('dataset_path')!r}, no local file", where=str(path))
    files = (task.get("dataset_kwargs") or {}).get("data_files")
    named = files.get(split) if isinstance(files, dict) else files if split in ("train", "test") else None
    if isinstance(named, list) and len(named) == 1:
        named = named[0]
    if not isinstance(named, str):
        raise InputError(f"no file is named for the split {split!r}", where=str(path), hint="dataset_kwargs.data_files")
    folder = path.parent.resolve()
    inside = (folder / named).resolve()
    file = inside if inside.is_relative_to(folder) and inside.is_file() else folder / Path(named).name
    if not file.is_file() or not file.resolve().is_relative_to(folder):
        raise InputError(
            f"the questions are missing: {Path(named).name}", where=str(path), hint="put that file beside the task"
        )
    return file


ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # no HTML


def rendered(template: str, row: Mapping[str, Any], where: str) -> str:
    """A task's template with the columns of ``row``. Raises ``InputError`` where it fails or does what it may not."""
    try:
        text = _template(template).render(**{str(name): value for name, value in row.items()})
    except SecurityError as error:
        raise InputError(f"the template may not do this: {error}", where=where) from error
    except jinja2.TemplateAssertionError as error:  # a filter or test of the harness' own
        raise NotNative(f"the template uses {error.message}", where=where) from error
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the template fails: {error}", where=where) from error
    if len(text) > LONGEST:
        raise InputError(f"the text grows beyond {LONGEST} characters", where=where)
    return text


def value_of(template: Any, row: Mapping[str, Any], where: str, *, chooses: bool) -> Any:
    """What a field of a task says of ``row``: a column's value, a constant, or a template's text.

    As in the harness, a text of digits is a position where the task ``chooses``, and a text in brackets a list.
    """
    if isinstance(template, Code):
        raise NotNative(f"the task runs code: {template.name}", where=where)
    if isinstance(template, dict):
        return list(template.values())
    if not isinstance(template, str):
        return template
    if template in row:
        return row[template]
    text = rendered(template, row, where)
    if chooses and text.isdecimal():
        return int(text)
    if len(text) >= 2 and text[0] == "[" and text[-1] == "]":
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
    return text


@lru_cache(maxsize=64)
def _template(text: str) -> jinja2.Template:
    return ENVIRONMENT.from_string(text)

"""Parameters in files: what a person has at hand, and what a cluster has.

    pipeline-parameters.env     SDG_SCALE_FACTOR="8"           variables, one a line; quotes and # as shells have them
    configmap.yaml              kind: ConfigMap, data: {…}     as `oc get configmap instructlab-pipeline-params -o yaml`
    kustomization.yaml          configMapGenerator: literals   of the generator instructlab-pipeline-params

Values are text, and typed by the table. Nothing is run or expanded: ``$HOME`` stays as it is written.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ilab.errors import InputError, InputErrors

CONFIG_MAP = "instructlab-pipeline-params"
SETTINGS_KEY = "ilab.yaml"  # its key that holds no parameter, but settings about where (ilab.kubeflow.settings)


def read_parameters(path: Path) -> dict[str, str]:
    """Name to text of every parameter in ``path``, in lower case.

    Raises InputError(s) with file and line for what is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"parameters cannot be read: {reason}", where=str(path)) from error
    found = _manifest(path, text) if path.suffix in (".yaml", ".yml") else _variables(path, text)
    return {name.lower(): value for name, value in found.items()}


def _variables(path: Path, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    wrong: list[InputError] = []
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}:{number}"
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            wrong.append(InputError(f"a quote is not closed: {error}", where=where))
            continue
        words = words[1:] if words[:1] == ["export"] else words
        if not words:
            continue
        name, equals, value = words[0].partition("=")
        if not equals or not name.isidentifier() or len(words) > 1:
            hint = "one a line, for example SDG_SCALE_FACTOR=8; quote values that hold spaces"
            wrong.append(InputError(f"no NAME=VALUE: {line.strip()[:60]}", where=where, hint=hint))
        elif name.lower() in found:
            wrong.append(InputError(f"{name} is given twice", where=where))
        else:
            found[name.lower()] = value
    _refuse(wrong)
    return found


def _manifest(path: Path, text: str) -> dict[str, str]:
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"not readable YAML: {getattr(error, 'problem', error)}", where=where) from error
    for document in documents:
        if not isinstance(document, dict):
            continue
        if document.get("kind") == "ConfigMap":
            data = document.get("data") or {}
            if isinstance(data, dict):
                return {str(name): as_text(value) for name, value in data.items() if name != SETTINGS_KEY}
        for generator in document.get("configMapGenerator") or []:
            if isinstance(generator, dict) and generator.get("name") == CONFIG_MAP:
                return _literals(path, generator.get("literals") or [])
    hint = (
        f"a ConfigMap, or a kustomization with a configMapGenerator named {CONFIG_MAP}; else NAME=VALUE in a .env file"
    )
    raise InputError("holds no parameters", where=str(path), hint=hint)


def _literals(path: Path, literals: Iterable[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    wrong: list[InputError] = []
    for literal in literals:
        name, equals, value = str(literal).partition("=")
        if not equals:
            wrong.append(InputError(f"no name=value: {literal}", where=str(path)))
        # As kustomize: quotes around the whole value go.
        found[name] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    _refuse(wrong)
    return found


def as_text(value: Any) -> str:
    """A value as files and ConfigMaps hold it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse(wrong: list[InputError]) -> None:
    if len(wrong) > 1:
        raise InputErrors(wrong)
    if wrong:
        raise wrong[0]


def as_variables(values: Mapping[str, Any]) -> str:
    """``values`` as a file of variables; what has no value is a comment. ``read_parameters`` reads it back."""
    lines = []
    for name, value in values.items():
        text = "" if value is None else as_text(value)
        lines.append(f"# {name.upper()}=" if value is None else f"{name.upper()}={_quoted(text)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return f'"{text}"' if not set(text) & set('"\\') else shlex.quote(text)

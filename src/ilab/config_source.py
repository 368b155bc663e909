"""A YAML file of settings with the line of every one, and the joining of several such files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ilab.errors import InputError

DEEPEST = 20  # groups within groups


@dataclass(frozen=True)
class Source:
    """``tree`` holds the values, ``lines`` the 1-based line of every setting and group, by dotted path."""

    path: Path
    tree: dict[str, Any]
    lines: Mapping[str, int]

    def place(self, path: str) -> str:
        """``file:line`` of a setting, or of the nearest group above it that stands in the file."""
        while path:
            if path in self.lines:
                return f"{self.path}:{self.lines[path]}"
            path = path.rpartition(".")[0]
        return str(self.path)


def read_source(path: Path) -> Source:
    """The settings of a file. Raises InputError with its line for what is no YAML, no mapping, or given twice."""
    try:
        return parse_source(path.read_text(encoding="utf-8"), path)
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from error


def parse_source(text: str, path: Path) -> Source:
    """As :func:`read_source`, of a text that ``path`` has or shall have."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"cannot be read: {getattr(error, 'problem', error)}", where=where) from error
    if data is None:
        return Source(path, {}, {})
    if not isinstance(data, dict):
        raise InputError("must be a mapping of settings", where=str(path))
    lines: dict[str, int] = {}

    def walk(prefix: str, node: Any, depth: int = 0) -> None:
        if depth > DEEPEST:  # an alias may hold itself
            raise InputError(f"{prefix[:60]}… is nested too deeply", where=f"{path}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}.{key.value}" if prefix else str(key.value)
                line = key.start_mark.line + 1
                if name in lines:
                    message = f"{name} is given twice, first in line {lines[name]}"
                    raise InputError(message, where=f"{path}:{line}", hint="leave one of them out")
                lines[name] = line
                walk(name, value, depth + 1)

    walk("", node)
    return Source(path, data, lines)


def joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of two layers: those of ``above`` count where both have one.

    A server is taken whole from the layer that gives its ``url``: a key of one file must never go to the address of
    another.
    """
    tree = dict(below)
    for name, value in above.items():
        old = tree.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and "url" not in value:
            tree[name] = joined(old, value)
        else:
            tree[name] = value
    return tree


def paths_of(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path to value of every setting in ``tree``; an empty group is a value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping) and value:
            flat.update(paths_of(value, path))
        else:
            flat[path] = value
    return flat

"""Changes to a file of settings that leave everything else in it as it is: comments, order, quotes.

What would be written is checked first, so that a mistake never reaches the file.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab.config import check_source, known_paths
from ilab.config_source import parse_source
from ilab.core.files import write_text
from ilab.errors import InputError, InputErrors
from ilab.migrate import is_instructlab

if TYPE_CHECKING:
    from ruamel.yaml import YAML

WIDTH = 4096  # no line is broken anew


def change(path: Path, settings: Mapping[str, Any]) -> None:
    """Give settings (dotted path to value) new values in the file ``path``, which may not be there yet.

    Raises InputError with file and line where the file, as it would be, is wrong; it is left alone then.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    store(path, changed(text, settings, path))


def store(path: Path, text: str) -> None:
    """Write ``text`` as the file ``path``, checked. Raises InputErrors; the file is left alone then."""
    check(text, path)
    write_text(path, text)


def keep(path: Path) -> Path:
    """Copy ``path`` to ``NAME.old`` beside it, or ``NAME.old.2`` … where that is taken. Returns the copy's path."""
    names = (path.with_name(f"{path.name}.old{number}") for number in ("", *(f".{one}" for one in range(2, 10_000))))
    old = next(name for name in names if not name.exists())
    shutil.copyfile(path, old)
    return old


def check(text: str, path: Path) -> None:
    """Raises InputErrors with file and line of every mistake in ``text``, of ours or of InstructLab's form."""
    source = parse_source(text, path)
    wrong = [] if is_instructlab(source.tree) else check_source(source)
    if wrong:
        raise InputErrors(wrong)


def changed(text: str, settings: Mapping[str, Any], path: Path) -> str:
    """``text`` with new values. Raises InputError where a setting would stand below a value."""
    source = parse_source(text, path)
    if is_instructlab(source.tree):
        raise InputError(
            "this is a file of InstructLab's",
            where=str(path),
            hint=f"write it anew first: ilab config migrate {path} --output {path}",
        )
    emitter = _emitter(text)
    tree = emitter.load(text)
    if tree is None:  # nothing but comments, which would be lost
        return f"{text.rstrip()}\n{_dumped(emitter, nested(settings))}".lstrip("\n")
    for name, value in settings.items():
        *groups, last = name.split(".")
        at: Any = tree
        for group in groups:
            if not isinstance(at.get(group), Mapping):
                if at.get(group) is not None:
                    raise InputError(f"{name}: {group} is a value, not a group of settings", where=source.place(name))
                at[group] = {}
            at = at[group]
        at[last] = value
    return _dumped(emitter, tree)


def written(tree: Mapping[str, Any], comments: Mapping[str, str], head: str = "") -> str:
    """A new file: the settings of ``tree``, each under its comment (by dotted path), after the comment ``head``."""
    text = _dumped(_emitter(""), dict(tree)) if tree else ""
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    path: list[str] = []
    for line in text.splitlines():
        match = re.match(r"( *)([\w.-]+):", line)
        if match:
            path = [*path[: len(match[1]) // 2], match[2]]
            told = comments.get(".".join(path))
            lines += [f"{match[1]}# {part}" for part in told.splitlines()] if told else []
        lines.append(line)
    return "\n".join(lines) + "\n"


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted path as groups in groups."""
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        *groups, last = name.split(".")
        at = tree
        for group in groups:
            at = at.setdefault(group, {})
        at[last] = value
    return tree


def settings_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``tree`` by dotted path, for :func:`nested`. One whose names are the user's own stays whole."""
    groups = {path.rpartition(".")[0] for path in known_paths()} | {"parameters"}
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Mapping[str, Any]) -> None:
        for name, item in value.items():
            path = f"{prefix}.{name}".lstrip(".")
            if isinstance(item, Mapping) and path in groups:
                walk(path, item)
            else:
                found[path] = item

    walk("", tree)
    return found


def _emitter(text: str) -> YAML:
    """Round-trips YAML in the indentation that ``text`` has."""
    from ruamel.yaml import YAML

    emitter = YAML()
    emitter.preserve_quotes = True
    emitter.width = WIDTH
    indent = re.search(r"^[\w.-]+:[ \t]*(?:#.*)?\n((?:[ \t]*(?:#.*)?\n)*)( +)[\w.-]", text, re.MULTILINE)
    emitter.indent(mapping=len(indent[2]) if indent else 2, sequence=4, offset=2)
    return emitter


def _dumped(emitter: YAML, tree: Any) -> str:
    out = io.StringIO()
    emitter.dump(tree, out)
    return out.getvalue()

"""InstructLab's configuration files, read as ours.

    read_source(FILE) ──▶ translate ──▶ our settings, each with the line it came from
                                   ──▶ what has no meaning here, each with what to do instead

The table of all settings, of file versions 0.x and 1.0.0, is :mod:`ilab.migrate_table`. A setting that only repeats
what InstructLab did anyway, and has no meaning here, is counted but not listed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilab.config import cache_home, data_home
from ilab.config_source import Source, paths_of
from ilab.migrate_table import ARGUMENTS, ARGUMENTS_LEFT, DATA, GROUPS, MODELS, OLDER, ROWS, Row
from ilab.parameters.data import FAMILIES

OURS = frozenset({"profile", "pipeline", "parameters", "models", "where"})
FAMILY = "parameters.sdg_teacher_family"
VERSIONS = ("0.x", "1.0.0")


@dataclass(frozen=True)
class Left:
    """A setting that has no counterpart: its name, value and ``file:line``, and what to do instead."""

    path: str
    value: Any
    place: str
    instead: str


@dataclass(frozen=True)
class Translation:
    """``tree`` are our settings, ``lines`` where each comes from (dotted path of ours to line of theirs).

    ``left`` lists what has no meaning here, ``defaults`` counts settings that said nothing new.
    """

    version: str
    tree: dict[str, Any]
    lines: Mapping[str, int]
    left: tuple[Left, ...]
    defaults: int

    def as_source(self, path: Path) -> Source:
        """Our settings, with the lines of the file that they come from."""
        return Source(path, self.tree, self.lines)

    def summary(self, path: Path) -> str:
        """One line: what became of the file."""
        count = len(paths_of(self.tree))
        left = f", {len(self.left)} have no meaning here" if self.left else ""
        return (
            f"{path} is a file of InstructLab's (version {self.version}): {count} settings are taken over{left}; "
            f"to see them, and to write it anew: ilab config migrate {path}"
        )


def is_instructlab(tree: Mapping[str, Any]) -> bool:
    """Whether a file of settings was written for InstructLab. One setting of ours is enough to say no."""
    theirs = {name for name in tree if name in GROUPS} | ({"version"} & tree.keys())
    ours = {name for name in tree if name in OURS and not (name == "models" and isinstance(tree[name], list))}
    return bool(theirs) and not ours


def translate(source: Source) -> Translation:
    """The settings of an InstructLab file as ours. Nothing is raised for its values: ours are checked like any others.

    ``~`` and ``$NAME`` in them are filled in, as InstructLab did.
    """
    found = _Found(source)
    given = source.tree.get("version")
    rows = ROWS if given is not None else {**ROWS, **OLDER}
    for path, value in _settings(source.tree).items():
        row = rows.get(path)
        if row is None:
            found.leave(path, value, "InstructLab has no such setting either")
        elif value is not None:
            found.take(path, row, _filled(value))
    _named_models(found, source.tree)
    _leave_arguments(found, source.tree)
    version = str(given) if given is not None else VERSIONS[0]
    return Translation(version, found.tree, found.lines, tuple(found.left), found.defaults)


class _Found:
    """What has been translated so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tree: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        self.left: list[Left] = []
        self.defaults = 0

    def take(self, path: str, row: Row, value: Any) -> None:
        plain = _without_home(value)
        told = {} if plain in row.skip else row.read(value)
        if told:
            for target, meant in told.items():
                if target == FAMILY:
                    self.put_family(path, meant)
                else:
                    self.put(path, target, meant)
        elif plain in (row.default, "", *row.skip) or not row.instead:
            self.defaults += 1
        else:
            self.leave(path, value, row.instead)

    def put(self, path: str, target: str, value: Any) -> None:
        *groups, name = target.split(".")
        tree = self.tree
        for group in groups:
            tree = tree.setdefault(group, {})
        tree[name] = value
        self.lines[target] = self.source.lines.get(path, 1)

    def put_family(self, path: str, name: Any) -> None:
        """A family of models by our name; InstructLab took any that contains one, as ``meta-llama``."""
        known = [family for family in FAMILIES if family in str(name).lower()]
        if known:
            self.put(path, FAMILY, max(known, key=len))
        else:
            self.leave(path, name, f"families are {', '.join(FAMILIES)}; a server knows its model's own format")

    def leave(self, path: str, value: Any, instead: str, at: str = "") -> None:
        self.left.append(Left(path, value, self.source.place(at or path), instead))


def _settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path to value; a setting whose value is a mapping or list stays whole."""
    flat: dict[str, Any] = {}
    for path, value in paths_of(tree).items():
        whole = next((name for name in ROWS if path.startswith(f"{name}.")), None)
        if whole is None:
            flat[path] = value
        else:
            group: Any = tree
            for part in whole.split("."):
                group = group[part]
            flat[whole] = group
    return flat


def _named_models(found: _Found, tree: Mapping[str, Any]) -> None:
    """The list ``models``, and ``general.teacher_model_id`` and ``student_model_id``, which name entries of it."""
    entries = tree.get("models")
    named: dict[str, dict[str, str]] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        given = {str(key): value for key, value in entry.items()} if isinstance(entry, Mapping) else {}
        name, path = str(given.pop("id", "") or ""), str(given.pop("path", "") or "")
        if not name or not path or name in named:
            why = "an id is given once" if name in named else "an entry has an id and a path"
            found.leave(f"models[{number}]", entry, why, at="models")
            continue
        taken = {key: str(given.pop(key)) for key in ("family", "system_prompt") if given.get(key)}
        named[name] = {"path": str(_filled(path)), **taken}
        for key, value in given.items():
            if value is not None and key not in ("family", "system_prompt"):
                found.leave(f"models[{number}].{key}", value, "InstructLab has no such setting either", at="models")
    if named:
        found.put("models", "models.named", named)
    general = tree.get("general")
    for role, target in (("teacher", "models.teacher"), ("student", "parameters.sdg_base_model")):
        setting = f"{role}_model_id"
        chosen = named.get(str(general.get(setting))) if isinstance(general, Mapping) else None
        if chosen is None:
            continue
        path = f"general.{setting}"
        found.put(path, target, chosen["path"])
        found.left = [left for left in found.left if left.path != path]
        if role == "teacher" and chosen.get("family"):
            found.put_family(path, chosen["family"])


def _leave_arguments(found: _Found, tree: Mapping[str, Any]) -> None:
    """What ``train.additional_args`` has besides settings of ours."""
    group = tree.get("train")
    given = group.get("additional_args") if isinstance(group, Mapping) else None
    if not isinstance(given, Mapping):
        return
    for name, value in given.items():
        if value is None or name in ARGUMENTS or (name == "lora_target_modules" and isinstance(value, list)):
            continue
        default, why = ARGUMENTS_LEFT.get(str(name), (None, "InstructLab has no such argument either"))
        if value == default:
            found.defaults += 1
        else:
            found.leave(f"train.additional_args.{name}", value, why)


def _filled(value: Any) -> Any:
    """``value`` with ``~`` and environment variables filled in, where it is a path."""
    if isinstance(value, str) and value.startswith(("~", "$")):
        return str(Path(os.path.expandvars(value)).expanduser())
    return value


def _without_home(value: Any) -> Any:
    """``value`` as the table has it: InstructLab wrote its folders in full."""
    if not isinstance(value, str):
        return value
    return value.replace(str(data_home()), DATA).replace(str(cache_home() / "models"), MODELS)

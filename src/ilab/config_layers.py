"""The places that settings come from, as layers, and how they lie over one another.

    profile  <  the user's file  <  the project's file  <  --set  <  flags

A layer is data; whether its settings exist and are right is looked at once, when all are merged.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilab.config_source import Source, joined, paths_of
from ilab.errors import InputError
from ilab.homes import expanded

if TYPE_CHECKING:
    from ilab.profiles import Profile

USER_PATHS = ("where.store", "where.cache", "where.registry")  # which a project may give relative to its folder
OF_A_PROJECT = ("pipeline", "parameters")  # what the user's file says of these holds outside of projects


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    ``labels`` (``ilab.yaml:3``) and ``places`` (the same with the whole path) say where each comes from, by dotted
    path. ``notes`` are for people.
    """

    tree: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    notes: tuple[str, ...] = ()


def of_file(source: Source) -> Layer:
    """The layer of a file in our own form."""
    return _layer(source, source.tree, source.lines)


def of_user(source: Source, in_project: bool) -> Layer:
    """The layer of the user's file. One of InstructLab's is translated, and a note says so.

    Raises InputError for a relative path, which would mean another place in every folder.
    """
    from ilab.migrate import is_instructlab, translate

    tree: Mapping[str, Any] = source.tree
    lines, notes = source.lines, tuple[str, ...]()
    if is_instructlab(tree):
        translated = translate(source)
        tree, lines, notes = translated.tree, translated.lines, (translated.summary(source.path),)
    if in_project:
        tree = {name: value for name, value in tree.items() if name not in OF_A_PROJECT}
    for name, value in paths_of(tree).items():
        if name in USER_PATHS and _is_relative(value):
            hint = "write it from / or ~: this file holds wherever a command is typed"
            raise InputError(f"{name}: a relative path", where=source.place(name), hint=hint)
    return _layer(source, tree, lines, notes)


def _is_relative(value: Any) -> bool:
    return isinstance(value, str) and "://" not in value and not expanded(value).is_absolute()


def of_profile(layers: Sequence[Layer], base: Path) -> tuple[Profile | None, Layer]:
    """The profile that the uppermost layer names, and its settings.

    A path is relative to the file that names it, or to ``base``. An empty name is none at all.
    """
    naming = next((layer for layer in reversed(layers) if "profile" in layer.tree), None)
    if naming is None or not naming.tree["profile"]:
        return None, Layer({})
    from ilab.profiles import find_profile

    profile = find_profile(
        str(naming.tree["profile"]), naming.file.parent if naming.file else base, naming.places.get("profile", "")
    )
    tree = {"where": profile.where} if profile.where else {}
    labels = {path: f"profile {profile.name}" for path, _ in _all_paths(tree)}
    return profile, Layer(tree, labels, labels)


def of_command(sets: Sequence[str], flags: Mapping[str, Any]) -> Layer:
    """``--set`` and flags; here ``tree`` maps whole dotted paths to values."""
    tree: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for text in sets:
        path, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set takes PATH=VALUE, not {text!r}", hint="for example --set where.threads=2")
        tree[path.strip()] = _value(text, value)
        labels[path.strip()] = "--set"
    for path, value in flags.items():
        if value is not None:
            tree.pop(path, None)  # so that a flag comes after every --set
            tree[path] = value
            labels[path] = "flag"
    return Layer(tree, labels, labels)


def merge(layers: Sequence[Layer], given: Layer) -> Layer:
    """All layers as one, the upper last and ``given`` (of :func:`of_command`) over them."""
    tree: dict[str, Any] = {}
    labels: dict[str, str] = {}
    places: dict[str, str] = {}
    for layer in layers:
        tree = joined(tree, copy.deepcopy(layer.tree))
        whole = [path for path, value in _all_paths(layer.tree) if isinstance(value, Mapping) and "url" in value]
        for said, more in ((labels, layer.labels), (places, layer.places)):
            for path in [path for path in said if any(path.startswith(f"{group}.") for group in whole)]:
                del said[path]
            said.update(more)
    for path, value in given.tree.items():
        put(tree, path, copy.deepcopy(value))
    labels.update(given.labels)
    places.update(given.places)
    return Layer(tree, labels, places)


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set ``path``, with the groups above it. Raises InputError where one of them is a value."""
    *parents, name = path.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise InputError(f"{path}: {parent} is a value, not a group of settings")
    tree[name] = value


def _layer(source: Source, tree: Mapping[str, Any], lines: Mapping[str, int], notes: tuple[str, ...] = ()) -> Layer:
    return Layer(
        tree,
        {path: f"{source.path.name}:{line}" for path, line in lines.items()},
        {path: f"{source.path}:{line}" for path, line in lines.items()},
        source.path,
        notes,
    )


def _all_paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting and every group, by dotted path."""
    for name, value in tree.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        yield path, value
        if isinstance(value, Mapping):
            yield from _all_paths(value, path)


def _value(text: str, value: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text}: the value is no YAML", hint="quote it: --set 'a.b=\"text\"'") from error

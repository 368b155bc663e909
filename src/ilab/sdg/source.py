"""A YAML file of a flow with the lines of its parts, and the files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ilab.errors import InputError
from ilab.plugins import nearest

Location = tuple[str | int, ...]
FLOW_SHAPE = "a flow is a mapping with name, version and branches"


@dataclass(frozen=True)
class Source:
    """A YAML file: what it says, and where. ``root`` is the folder that no file it names may lie outside of."""

    path: Path
    root: Path
    node: yaml.Node
    content: Mapping[str, Any]

    def at(self, location: Location) -> str:
        """``file:line`` of the deepest part of ``location`` that stands in the file."""
        node, line = self.node, 1
        for step in location:
            found = None
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                found = (node.value[step], node.value[step])
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return f"{self.path}:{line}"

    def file(self, name: str, location: Location) -> Path:
        """The file ``name`` seen from this one. Raises ``InputError`` where it lies outside of ``root``."""
        path = (self.path.parent / name).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise InputError(
                f"{name!r} lies outside the flow's folder", where=self.at(location), hint=f"copy it to {self.root}"
            )
        return path

    def text(self, name: str, location: Location) -> str:
        """The text of the file ``name``. Raises ``InputError`` where it cannot be read or lies outside of ``root``."""
        try:
            return self.file(name, location).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the file {name!r} cannot be read: {error}", where=self.at(location)) from error


def read_source(path: Path, root: Path | None = None, shape: str = FLOW_SHAPE) -> Source:
    """The YAML mapping in ``path``; ``shape`` says what it should be. Raises ``InputError`` with the line where not."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"not YAML: {getattr(error, 'problem', None) or error}", where=where) from error
    if not isinstance(node, yaml.MappingNode) or not isinstance(content, dict):
        raise InputError(shape, where=str(path))
    return Source(path, root or path.parent, node, content)


def explain(error: ValidationError, cls: type[BaseModel], source: Source, at: Location) -> list[InputError]:
    """Everything that pydantic found wrong, in words, with its line. A field is told once."""
    told: dict[str, InputError] = {}
    for found in error.errors():
        path = ".".join(str(part) for part in found["loc"])
        where = source.at((*at, *found["loc"]))
        if found["type"] == "extra_forbidden":
            hint = nearest(str(found["loc"][-1]), sorted(_known(cls, found["loc"])))
            wrong = InputError(f"unknown field {path!r}", where=where, hint=hint)
        elif found["type"] == "missing":
            wrong = InputError(f"the field {path!r} is missing", where=where)
        else:
            message = found["msg"].removeprefix("Value error, ")
            wrong = InputError(f"{path}: {message}" if path else message, where=where)
        told.setdefault(where if found["loc"] else path, wrong)
    return list(told.values())


def _known(cls: type[BaseModel], location: Location) -> list[str]:
    """The fields of the model in which ``location`` ends, as far as ``cls`` names it."""
    fields = cls.model_fields
    for step in location[:-1]:
        info = fields.get(str(step))
        for argument in (getattr(info.annotation, "__args__", ()) or (info.annotation,)) if info else ():
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                fields = argument.model_fields
    return list(fields)

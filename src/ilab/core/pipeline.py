"""A pipeline is data: named steps and how they are wired; a plan is the same with every key known.

    name: quickstart
    extends: instructlab            # everything of that pipeline, with other values
    parameters: {sdg_scale_factor: 8}
    steps:
      taxonomy:  {step: taxonomy, tree: $taxonomy}
      documents: {step: documents, sources: $taxonomy, from: {taxonomy: taxonomy}}

``$name`` stands for a parameter's value, whole; there are no string templates. ``from`` wires inputs to the names of
other steps (a mapping where an input takes many). Resolving turns locators into digests, then keys follow from
fields and input keys alone; nothing has run yet.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ilab.core.step import Found, InputSpec, Step
from ilab.errors import InputError

Wiring = Mapping[str, str | Mapping[str, str]]  # input name -> step name(s)
Resolver = Callable[[str], Found]


@dataclass(frozen=True)
class Node:
    """One named step of a pipeline file, not yet resolved."""

    name: str
    step: type[Step]
    settings: Mapping[str, Any]
    wiring: Wiring


@dataclass(frozen=True)
class Pipeline:
    name: str
    parameters: Mapping[str, Any]  # values the file gives, over the parameter table's defaults
    steps: Mapping[str, Mapping[str, Any]]
    path: str


@dataclass(frozen=True)
class Planned:
    """One step with its identity. ``inputs`` maps input names to step names, ``input_keys`` to their keys."""

    name: str
    step: Step
    inputs: Wiring
    input_keys: Wiring
    key: str


@dataclass(frozen=True)
class Plan:
    """Steps in an order in which they can run, and where the outside things were found."""

    pipeline: str
    steps: Mapping[str, Planned]
    found: Mapping[str, Found]
    parameters: Mapping[str, Any]

    def until(self, name: str) -> Plan:
        """The plan cut down to ``name`` and what it needs."""
        wanted: set[str] = set()

        def visit(step: str) -> None:
            if step not in wanted:
                wanted.add(step)
                for source in sources(self.steps[step].inputs):
                    visit(source)

        visit(self.named(name).name)
        return replace(self, steps={key: step for key, step in self.steps.items() if key in wanted})

    def named(self, name: str) -> Planned:
        """The step called ``name``. Raises InputError naming the nearest."""
        if name not in self.steps:
            raise InputError(f"the pipeline has no step {name!r}", hint=nearest(name, self.steps, "steps"))
        return self.steps[name]

    def dump(self) -> dict[str, Any]:
        """Plain JSON; ``Plan.load`` reads it back."""
        return {
            "pipeline": self.pipeline,
            "parameters": dict(self.parameters),
            "steps": [
                {
                    "name": planned.name,
                    "type": planned.step.type,
                    "version": planned.step.version,
                    "fields": planned.step.fields(),
                    "inputs": planned.inputs,
                    "key": planned.key,
                }
                for planned in self.steps.values()
            ],
            "found": {
                digest: {
                    "locator": found.locator,
                    "revision": found.revision,
                    "details": dict(found.details or {}),
                }
                for digest, found in self.found.items()
            },
        }

    @staticmethod
    def load(dumped: Mapping[str, Any], types: Mapping[str, type[Step]]) -> Plan:
        """Read a dumped plan. Raises InputError when this ilab would give a step another key."""
        steps: dict[str, Planned] = {}
        for entry in dumped["steps"]:
            step = types[entry["type"]].model_validate(entry["fields"])
            planned = _planned(entry["name"], step, entry["inputs"], steps)
            if planned.key != entry["key"]:
                raise InputError(
                    f"step {entry['name']} has the key {planned.key} here, {entry['key']} in the plan",
                    hint="the plan was made by another version of ilab, or edited; make it again with: ilab plan",
                )
            steps[planned.name] = planned
        found = {
            digest: Found(digest, entry["locator"], entry["revision"], entry["details"])
            for digest, entry in dumped["found"].items()
        }
        return Plan(dumped["pipeline"], steps, found, dumped["parameters"])


def read_pipeline(path: Path, find: Callable[[str], Path]) -> Pipeline:
    """Read a pipeline file; ``find`` gives the path of the pipeline named in ``extends``.

    Raises InputError with the file's name for YAML errors, unknown keys and missing parts.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"not readable YAML: {getattr(error, 'problem', error)}", where=f"{path}{line}") from error
    if not isinstance(data, dict):
        raise InputError("a pipeline file is a mapping with name, parameters and steps", where=str(path))
    known = ("name", "description", "extends", "parameters", "steps")
    for key in data:
        if key not in known:
            raise InputError(f"unknown key {key!r}", where=str(path), hint=nearest(str(key), known, "keys"))
    parent = read_pipeline(find(data["extends"]), find) if "extends" in data else None
    parameters = {**(parent.parameters if parent else {}), **(data.get("parameters") or {})}
    steps = {**(parent.steps if parent else {}), **(data.get("steps") or {})}
    if not steps:
        raise InputError("the pipeline has no steps", where=str(path), hint="write steps:, or extends: instructlab")
    return Pipeline(str(data.get("name") or path.stem), parameters, steps, str(path))


def build(
    pipeline: Pipeline,
    types: Mapping[str, type[Step]],
    values: Mapping[str, Any],
    resolvers: Mapping[str, Resolver],
) -> Plan:
    """Fill in parameters, check the wiring, resolve, and compute every key.

    Raises InputError for unknown step types, fields, parameters and inputs, for cycles and for artifacts of the wrong
    kind.
    """
    nodes = {name: _node(pipeline, name, body, types, values) for name, body in pipeline.steps.items()}
    found: dict[str, Found] = {}
    steps: dict[str, Planned] = {}
    for name in _order(nodes, pipeline.path):
        node = nodes[name]
        _check_wiring(node, nodes, pipeline.path)
        step = _resolved(node, resolvers, found, pipeline.path)
        try:
            steps[name] = _planned(name, step, node.wiring, steps)
        except (TypeError, ValueError) as error:  # infinity, for one, has no stable form
            raise InputError(f"no identity: {error}", where=f"{pipeline.path}, step {name}") from error
    return Plan(pipeline.name, steps, found, dict(values))


def part(pipeline: Pipeline, type_: str) -> Pipeline:
    """The first step of type ``type_``, and what it needs: the whole pipeline of a command that does one stage.

    Raises InputError for a pipeline without such a step.
    """
    named = [name for name, body in pipeline.steps.items() if isinstance(body, Mapping) and body.get("step") == type_]
    if not named:
        raise InputError(f"the pipeline has no step of type {type_!r}", where=pipeline.path)
    wanted, open_ = {named[0]}, [named[0]]
    while open_:
        wiring = pipeline.steps.get(open_.pop(), {}).get("from") or {}
        new = [name for name in sources(wiring) if name not in wanted]
        wanted.update(new)
        open_ += new
    return replace(pipeline, steps={name: body for name, body in pipeline.steps.items() if name in wanted})


def sources(wiring: Wiring) -> list[str]:
    """The names of all steps that ``wiring`` reads from."""
    names: list[str] = []
    for source in wiring.values():
        names.extend([source] if isinstance(source, str) else source.values())
    return names


def nearest(word: str, known: Iterable[str], what: str) -> str:
    """A hint that names the nearest known word, or all of them where none is near."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known {what}: {', '.join(sorted(known))}"


def _planned(name: str, step: Step, wiring: Wiring, earlier: Mapping[str, Planned]) -> Planned:
    keys: dict[str, str | dict[str, str]] = {
        given: earlier[source].key if isinstance(source, str) else {n: earlier[s].key for n, s in source.items()}
        for given, source in wiring.items()
    }
    return Planned(name, step, wiring, keys, step.key(keys))


def _node(pipeline: Pipeline, name: str, body: Any, types: Mapping[str, type[Step]], values: Mapping[str, Any]) -> Node:
    where = f"{pipeline.path}, step {name}"
    if not isinstance(body, Mapping) or "step" not in body:
        raise InputError("a step needs `step:` with its type", where=where)
    if body["step"] not in types:
        raise InputError(f"unknown step type {body['step']!r}", where=where, hint=nearest(body["step"], types, "types"))
    settings: dict[str, Any] = {}
    for field, value in body.items():
        if field in ("step", "from"):
            continue
        if isinstance(value, str) and value.startswith("$") and value[1:] not in values:
            raise InputError(f"unknown parameter {value}", where=where, hint=nearest(value[1:], values, "parameters"))
        settings[field] = values[value[1:]] if isinstance(value, str) and value.startswith("$") else value
    wiring = body.get("from") or {}
    return Node(name, types[body["step"]], settings, wiring)


def _order(nodes: Mapping[str, Node], path: str) -> list[str]:
    """Depth first, in the order of the file: stable, and every step after what it reads."""
    order: list[str] = []
    open_: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in open_:
            cycle = " -> ".join([*open_[open_.index(name) :], name])
            raise InputError(f"the steps form a circle: {cycle}", where=path)
        if name not in nodes:
            raise InputError(
                f"step {open_[-1]} reads from {name!r}, which is no step",
                where=path,
                hint=nearest(name, nodes, "steps"),
            )
        open_.append(name)
        for source in sources(nodes[name].wiring):
            visit(source)
        open_.pop()
        order.append(name)

    for name in nodes:
        visit(name)
    return order


def _check_wiring(node: Node, nodes: Mapping[str, Node], path: str) -> None:
    where = f"{path}, step {node.name}"
    specs = node.step.inputs()
    for given, source in node.wiring.items():
        if given not in specs:
            raise InputError(
                f"{node.step.type} has no input {given!r}", where=where, hint=nearest(given, specs, "inputs")
            )
        _check_kinds(specs[given], source, nodes, where)
    for name, spec in specs.items():
        if name not in node.wiring and not spec.optional:
            raise InputError(f"input {name!r} is not wired", where=where, hint=f"add from: {{{name}: STEP}}")


def _check_kinds(spec: InputSpec, source: str | Mapping[str, str], nodes: Mapping[str, Node], where: str) -> None:
    if isinstance(source, str) is spec.many:
        wanted = "a mapping of names to steps" if spec.many else "one step's name"
        raise InputError(f"input {spec.name!r} takes {wanted}", where=where)
    for name in [source] if isinstance(source, str) else source.values():
        made = nodes[name].step.makes()
        if not issubclass(made, spec.accepts):
            wanted = " or ".join(kind.kind for kind in spec.accepts)
            raise InputError(f"input {spec.name!r} takes {wanted}, but {name} makes {made.kind}", where=where)


def _resolved(node: Node, resolvers: Mapping[str, Resolver], found: dict[str, Found], path: str) -> Step:
    settings = dict(node.settings)
    for field, mark in node.step.resolvable().items():
        if settings.get(field) not in (None, ""):
            thing = resolvers[mark.by](str(settings[field]))
            found[thing.digest] = thing
            settings[field] = thing.digest
    try:
        return node.step.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        hint = nearest(field, node.step.model_fields, "fields") if first["type"] == "extra_forbidden" else ""
        raise InputError(f"{field}: {first['msg']}", where=f"{path}, step {node.name}", hint=hint) from error

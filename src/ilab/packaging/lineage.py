"""Where a model comes from: every step that had a part in it, in the order of the work, as plain JSON.

It goes into the package as ``lineage.json``, so it holds what is true wherever the model is built: keys, digests
and settings. Times, hosts, places, and counts that depend on what a cache held, stay in the store's records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ilab.errors import InputError

FORMAT = 1
NAME = "lineage.json"
_KEPT = ("step", "type", "version", "key", "digest", "fields", "inputs", "tools")


def lineage(
    records: Iterable[Mapping[str, Any]], taxonomy: Mapping[str, Any], model: Mapping[str, str]
) -> dict[str, Any]:
    """The lineage of a model.

    ``records`` are the contents of the steps' ``record.json``; ``taxonomy`` says which one was read (``digest``) and
    whose work it is (``attributions`` by leaf), ``model`` names the result (``name``,
    ``version``). Steps come after those they read from, equal
    ranks by name. Raises ``InputError`` where a record lacks a field, or two steps wait for each other.
    """
    steps = []
    for record in records:
        if missing := [name for name in _KEPT if name not in record]:
            raise InputError(
                f"the record of {record.get('step', 'a step')} lacks {', '.join(missing)}",
                hint="the store was changed by hand; remove that artifact's folder and run again",
            )
        steps.append({name: record[name] for name in _KEPT})
    tools: dict[str, str] = {}
    ordered = _ordered(steps)
    for step in ordered:
        tools |= step["tools"]
    return {
        "format": FORMAT,
        "model": dict(model),
        "taxonomy": dict(taxonomy),
        "tools": dict(sorted(tools.items())),
        "steps": ordered,
    }


def _ordered(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Inputs before what is made of them; the order given does not matter."""
    waiting = {step["key"]: step for step in sorted(steps, key=lambda step: (step["step"], step["key"]))}
    ordered: list[dict[str, Any]] = []
    while waiting:
        ready = [step for step in waiting.values() if not _inputs(step) & waiting.keys()]
        if not ready:
            raise InputError(f"these steps wait for each other: {', '.join(s['step'] for s in waiting.values())}")
        ordered += ready
        for step in ready:
            del waiting[step["key"]]
    return ordered


def _inputs(step: Mapping[str, Any]) -> set[str]:
    """Keys of all inputs; an input that takes many is a mapping of names to keys."""
    keys: set[str] = set()
    for value in step["inputs"].values():
        keys.update(value.values() if isinstance(value, Mapping) else [value])
    return keys

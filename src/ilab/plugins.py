"""Name → class: what ships with ilab, and what installed packages add through entry points.

A class is named as ``module:Class`` and imported when it is asked for, so that naming a plug-in loads nothing. A
package adds one with an entry point in the group, for example::

    [project.entry-points."ilab.blocks"]
    translate = "my_package.translate:Translate"
"""

from __future__ import annotations

import difflib
import importlib
from importlib import metadata
from typing import Any

from ilab.errors import InputError

BUILT_IN: dict[str, dict[str, str]] = {
    "ilab.blocks": {
        "agreement": "ilab.sdg.blocks.agreement:Agreement",
        "choose": "ilab.sdg.blocks.choose:Choose",
        "combine": "ilab.sdg.blocks.combine:Combine",
        "conditional-llm": "ilab.sdg.blocks.conditional_llm:ConditionalLlm",
        "conversation": "ilab.sdg.blocks.conversation:Conversation",
        "dedup": "ilab.sdg.blocks.dedup:Dedup",
        "drop": "ilab.sdg.blocks.drop:Drop",
        "duplicate": "ilab.sdg.blocks.duplicate:Duplicate",
        "expression": "ilab.sdg.blocks.expression:Expression",
        "extract": "ilab.sdg.blocks.extract:Extract",
        "filter": "ilab.sdg.blocks.filter:Filter",
        "flatten": "ilab.sdg.blocks.flatten:Flatten",
        "judge": "ilab.sdg.blocks.judge:Judge",
        "llm": "ilab.sdg.blocks.llm:Llm",
        "logprobs": "ilab.sdg.blocks.logprobs:Logprobs",
        "majority": "ilab.sdg.blocks.majority:Majority",
        "messages": "ilab.sdg.blocks.messages:Messages",
        "parse": "ilab.sdg.blocks.parse:Parse",
        "passage": "ilab.sdg.blocks.passage:Passage",
        "populate": "ilab.sdg.blocks.populate:Populate",
        "recombine": "ilab.sdg.blocks.recombine:Recombine",
        "rename": "ilab.sdg.blocks.rename:Rename",
        "repeat": "ilab.sdg.blocks.repeat:Repeat",
        "sample": "ilab.sdg.blocks.sample:Sample",
        "seeds": "ilab.sdg.blocks.seeds:Seeds",
        "select": "ilab.sdg.blocks.select:Select",
    },
}


def names(group: str) -> list[str]:
    """All names known in ``group``, sorted."""
    return sorted({*BUILT_IN.get(group, {}), *(point.name for point in metadata.entry_points(group=group))})


def load(group: str, name: str, *, where: str = "") -> Any:
    """The class called ``name`` in ``group``. What ships with ilab wins over an entry point of the same name.

    Raises ``InputError`` with the nearest names when there is none, or when a plug-in cannot be imported.
    """
    target = BUILT_IN.get(group, {}).get(name)
    if target is None:
        target = next((point.value for point in metadata.entry_points(group=group) if point.name == name), None)
    noun = group.removeprefix("ilab.").removesuffix("s")
    if target is None:
        near = nearest(name, names(group))
        raise InputError(f"there is no {noun} called {name!r}", where=where, hint=near)
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the {noun} {name!r} cannot be loaded: {error}",
            where=where,
            hint=f"check the package that provides {target}",
        ) from error


def nearest(name: str, known: list[str]) -> str:
    """A hint for a misspelt name: the nearest known one, and the whole list."""
    near = difflib.get_close_matches(name, known, n=1)
    listed = f"known: {', '.join(known)}"
    return f"did you mean {near[0]!r}? {listed}" if near else listed

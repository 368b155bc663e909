"""What a GGUF file says of itself: its name, licence, languages, base model, and how it was made.

The facts are those beside the model: the head of README.md (as model hubs read it) and lineage.json, both of which
``ilab`` writes into a package. They are other people's text and are only ever copied.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ilab.errors import InputError
from ilab.models.chat_template import json_object
from ilab.packaging.lineage import NAME as LINEAGE

LONGEST = 1 << 20  # characters of lineage that go into the file; a longer one stays beside the model
_HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?$", re.DOTALL | re.MULTILINE)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Label:
    """What the caller knows better than the folder; empty for what it does not know."""

    name: str = ""
    license: str = ""


def describe(folder: Path, label: Label) -> dict[str, Any]:
    """The ``general.…`` keys, and ``ilab.lineage``, for the model in ``folder``."""
    card = read_card(folder / "README.md")
    lineage = json_object(folder / LINEAGE)
    named = lineage.get("model")
    if not isinstance(named, dict):
        named = {}
    keys: dict[str, Any] = {
        "general.type": "model",
        "general.name": label.name or named.get("name") or folder.resolve().name,
        "general.version": named.get("version"),
        "general.license": label.license or card.get("license"),
    }
    base = card.get("base_model")
    base = base[0] if isinstance(base, list) and base else base
    if isinstance(base, str):
        keys |= {"general.base_model.count": 1, "general.base_model.0.name": base}
        if _HUB_NAME.fullmatch(base):
            keys["general.base_model.0.repo_url"] = f"https://huggingface.co/{base}"
    languages, tags = card.get("language"), card.get("tags")
    keys["general.languages"] = [languages] if isinstance(languages, str) else languages
    keys["general.tags"] = tags
    text = json.dumps(lineage, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    keys["ilab.lineage"] = text if lineage and len(text) <= LONGEST else None
    return {name: value for name, value in keys.items() if _is_plain(value)}


def read_card(path: Path) -> dict[str, Any]:
    """The YAML head of a model card, empty where there is none. Raises ``InputError`` where it is no YAML."""
    if not path.is_file():
        return {}
    head = _HEAD.search(path.read_text(encoding="utf-8", errors="replace"))
    try:
        found = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError as error:
        raise InputError(
            "the head of this model card is not YAML", where=str(path), hint="mend it, or take the file away"
        ) from error
    return found if isinstance(found, dict) else {}


def _is_plain(value: Any) -> bool:
    """Whether GGUF can hold it: text, a count, or a list of texts that is not empty."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) for item in value)
    return isinstance(value, int) or (isinstance(value, str) and bool(value))

"""Under which terms the parts of a model stand, and what they ask of whoever passes it on.

It says what is *known*, from what stands beside the parts: the head of the base model's card, the name of the teacher,
the ``attribution.txt`` of each leaf. It is no legal advice and says so; what nobody has said is shown as unknown, for a
person to find out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ilab.data import Leaf
from ilab.packaging.gguf.origin import read_card

OWN = "apache-2.0"  # of the built-in model and the rules
UNKNOWN = "unknown"
OTHER = "other"  # what model hubs call a licence without an identifier
NOT_ADVICE = "What is known from the parts themselves; it is no legal advice."
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_WORK = re.compile(r"^\s*licen[cs]e of the work:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)

NOTICE = "keep the licence's text and its notices with the model"
CREDIT = "name the authors and the licence, and say that the text was changed"
_OBLIGATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (  # the beginning of a licence's identifier
    ("apache-2.0", (NOTICE, "say which files were changed")),
    ("mit", (NOTICE,)),
    ("bsd-", (NOTICE,)),
    ("cc0-", ()),
    ("cc-by-sa", (CREDIT, "share what is adapted from it under the same licence")),
    ("cc-by-nc", (CREDIT, "no commercial use")),
    ("cc-by-nd", (CREDIT, "do not share what is adapted from it")),
    ("cc-by", (CREDIT,)),
    ("gfdl", (CREDIT, "share what is adapted from it under the same licence")),
    (
        "llama",
        (
            "pass on the licence and its notice, and show “Built with Llama” (from Llama 3 on)",
            "a model made or improved with it has a name that begins with Llama (from Llama 3 on)",
            "keep to its acceptable use policy",
        ),
    ),
    ("gemma", ("pass on the terms of use and their prohibited uses to whoever gets the model",)),
)
_TEACHERS: tuple[tuple[str, str, str], ...] = (  # a word in its name, licence or terms, what it asks of its outputs
    ("llama", "llama", "a model trained on its outputs has a name that begins with Llama (from Llama 3 on)"),
    ("gemma", "gemma", "a model trained on its outputs falls under Gemma's terms too"),
    ("gpt-oss", "apache-2.0", ""),
    ("gpt-", "terms of its provider", "its outputs may not make a model that competes with the provider's"),
    ("claude", "terms of its provider", "its outputs may not make a model that competes with the provider's"),
    ("gemini", "terms of its provider", "its outputs may not make a model that competes with the provider's"),
)


class Licence(BaseModel):
    """``part`` is what it is about (``base model``, ``teacher``, ``works``), ``of`` its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    of: str
    licence: str
    obligations: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()


def base_licence(base: Path, tiny: bool) -> str:
    """What the card beside the base model says, ``unknown`` where there is none."""
    named = OWN if tiny else read_card(base / "README.md").get("license")
    return named.lower() if isinstance(named, str) and _SPDX.fullmatch(named) else UNKNOWN


def licence_of_package(given: str, base: str) -> str:
    """The package's own: the one that was given, else the base model's; what nobody knows is ``other``."""
    return given or (OTHER if base == UNKNOWN else base)


def licences(base: tuple[str, str], teacher: str, leaves: Sequence[Leaf]) -> tuple[Licence, ...]:
    """The terms of all parts. ``base`` is (name, licence); ``teacher`` is empty where rules made the data."""
    found = [Licence(part="base model", of=base[0], licence=base[1], obligations=_asks(base[1]))]
    found.append(_teacher(teacher) if teacher else Licence(part="rules", of="ilab", licence=OWN))
    works: dict[str, list[str]] = {}
    for leaf in leaves:
        named = _WORK.findall(leaf.attribution or "") or [UNKNOWN]
        for one in dict.fromkeys(named):
            works.setdefault(_short(one), []).append(leaf.path)
    for licence, paths in sorted(works.items()):
        found.append(
            Licence(
                part="works",
                of=f"of {len(paths)} {'leaf' if len(paths) == 1 else 'leaves'}",
                licence=licence,
                obligations=_asks(licence),
                leaves=tuple(sorted(paths)),
            )
        )
    return tuple(found)


def _teacher(name: str) -> Licence:
    low = name.lower()
    for word, licence, asks in _TEACHERS:
        if word in low:
            return Licence(part="teacher", of=name, licence=licence, obligations=(asks,) if asks else ())
    asks = "nobody has said under which terms its outputs may train a model: ask whoever serves it"
    return Licence(part="teacher", of=name, licence=UNKNOWN, obligations=(asks,))


def _asks(licence: str) -> tuple[str, ...]:
    low = licence.lower()
    if low == UNKNOWN:
        return ("nobody has said under which terms it stands: find out before the model is passed on",)
    return next((asks for start, asks in _OBLIGATIONS if low.startswith(start)), ("read it: it is not known here",))


def _short(text: str) -> str:
    return " ".join(text.split())[:80]

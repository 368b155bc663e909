"""The channels of a model: two aliases in the registry that the nightly build moves.

nightly     the newest nightly build that its gate let through; it moves to a version once
stable      the release that the next build stands on; moved by a person, or where the gate passed
"""

from __future__ import annotations

from ilab.errors import GateError
from ilab.packaging.registry import Entry
from ilab.packaging.stages import Stages

NIGHTLY, STABLE = "nightly", "stable"
PASS = "pass"  # noqa: S105 - the gate's verdict


def finish(stages: Stages, name: str, version: str, *, promote: bool = False) -> dict[str, str]:
    """Point the channels to a version that is built: ``nightly``, with ``promote`` also ``stable``; alias to version.

    ``nightly`` moves to a version once: who rolled it back meant it. A model that was published in spite of its gate
    moves nothing. Raises ``InputError`` where there is no such version, ``GateError`` where one whose gate did not pass
    is to be promoted.
    """
    entry = stages.find(name, version)
    if _may_move(stages, entry):
        stages.alias(name, version, NIGHTLY)
    if promote and (verdict := _verdict(entry)) != PASS:
        raise GateError(
            f"{name} {version} is not promoted: its gate says {verdict or 'nothing'}",
            where=STABLE,
            hint=f"look at its report; to decide it: ilab registry alias {name} {version} {STABLE}",
        )
    if promote:
        stages.alias(name, version, STABLE)
    return now(stages, name)


def catch_up(stages: Stages, name: str, version: str, *, promote: bool = False) -> dict[str, str]:
    """As :func:`finish`, for a build whose end nobody waited for; nothing where its channel moved, or it made nothing.

    With ``promote`` only what passed its gate becomes stable: for the rest it is too late to say no.
    """
    entry = next((one for one in stages.registry.list() if (one.name, one.version) == (name, version)), None)
    if entry is None or not _may_move(stages, entry):
        return {}
    return finish(stages, name, version, promote=promote and _verdict(entry) == PASS)


def now(stages: Stages, name: str) -> dict[str, str]:
    """Which version each channel of a model means."""
    aliases = stages.aliases(name)
    return {alias: aliases[alias] for alias in (NIGHTLY, STABLE) if alias in aliases}


def _may_move(stages: Stages, entry: Entry) -> bool:
    moved = any(
        (change.what, change.detail, change.version) == ("aliased", NIGHTLY, entry.version)
        for change in stages.history(entry.name)
    )
    return not (moved or entry.recalled or entry.metrics.get("published_anyway"))


def _verdict(entry: Entry) -> str:
    return str(entry.metrics.get("verdict", ""))

"""What a registered version is for: its stage, the aliases that point to it, whether it was recalled; the way back."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Literal, get_args

from ilab.errors import GateError, InputError
from ilab.packaging.registry import Entry, Registry, entries_in, note_change

Stage = Literal["candidate", "staging", "production", "archived"]
STAGES: tuple[str, ...] = get_args(Stage)
PRODUCTION = "production"
LATEST = "latest"
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Change:
    """One line of the history: ``what`` (registered, promoted, aliased, unaliased, recalled, reinstated) was done to a
    version by ``person`` at ``time`` (UTC); ``detail`` is the stage, alias or reason."""

    version: str
    digest: str
    what: str
    detail: str
    person: str
    time: str


class Stages:
    """Changes what versions are for. Everything raises ``InputError`` for a version that is not registered.

    What a change depends on is read in its own transaction, so of two at once the later one sees the earlier.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def find(self, name: str, reference: str = "") -> Entry:
        """The entry that a version, an alias, a stage or nothing (``latest``) means."""
        with self.registry.database.reading() as connection:
            return self._find(connection, name, reference)

    def aliases(self, name: str) -> dict[str, str]:
        """Alias to version, by alias."""
        with self.registry.database.reading() as connection:
            return _aliases(connection, name)

    def history(self, name: str) -> list[Change]:
        """Everything that was done to a model's versions, oldest first."""
        with self.registry.database.reading() as connection:
            return _changes(connection, name)

    def promote(self, name: str, reference: str, stage: str) -> Entry:
        """Bring a version to ``stage``. What was in production before is archived. Raises ``GateError`` for a version
        that was recalled."""
        if stage not in STAGES:
            raise InputError(f"{stage!r} is no stage", hint=f"give one of {', '.join(STAGES)}")
        return self.registry.database.change(lambda connection: self._promote(connection, name, reference, stage))

    def alias(self, name: str, reference: str, alias: str) -> Entry:
        """Point ``alias`` to a version. Raises ``GateError`` for a version that was recalled."""
        if not _ALIAS.fullmatch(alias) or alias in (LATEST, *STAGES):
            hint = "use a word like stable or nightly; `latest` always means the highest version"
            raise InputError(f"{alias!r} is no alias", hint=hint)
        return self.registry.database.change(lambda connection: self._alias(connection, name, reference, alias))

    def rollback(self, name: str, alias: str = "") -> tuple[Entry, Entry]:
        """Go back to what was in production, or what ``alias`` meant, before; (what was left, what holds now).

        A version that was recalled meanwhile is passed over. Raises ``InputError`` where nothing came before.
        """
        return self.registry.database.change(lambda connection: self._rollback(connection, name, alias))

    def recall(self, name: str, reference: str, reason: str) -> Entry:
        """Withdraw a version: it is archived, its aliases go, and whoever fetches it is warned with the ``reason``."""
        if not reason.strip():
            raise InputError("a recall needs a reason", hint="say what is wrong with it: --reason TEXT")
        told = " ".join(reason.split())

        def withdraw(connection: sqlite3.Connection) -> Entry:
            entry = self._find(connection, name, reference)
            for alias, version in _aliases(connection, name).items():
                if version == entry.version:
                    connection.execute("DELETE FROM aliases WHERE (name, alias) = (?, ?)", (name, alias))
                    note_change(connection, entry, "unaliased", alias)
            _set(connection, entry, "recalled", told)
            note_change(connection, entry, "recalled", told)
            if entry.stage != "archived":
                _set_stage(connection, entry, "archived")
            return self._find(connection, name, entry.version)

        return self.registry.database.change(withdraw)

    def reinstate(self, name: str, reference: str) -> Entry:
        """Take a recall back; the version stays archived until it is promoted."""

        def take_back(connection: sqlite3.Connection) -> Entry:
            entry = self._find(connection, name, reference)
            _set(connection, entry, "recalled", "")
            note_change(connection, entry, "reinstated", "")
            return self._find(connection, name, entry.version)

        return self.registry.database.change(take_back)

    def _promote(self, connection: sqlite3.Connection, name: str, reference: str, stage: str) -> Entry:
        entry = self._usable(connection, name, reference)
        for one in entries_in(connection) if stage == PRODUCTION else ():
            if (one.name, one.stage) == (name, PRODUCTION) and one.version != entry.version:
                _set_stage(connection, one, "archived")
        if entry.stage != stage:
            _set_stage(connection, entry, stage)
        return self._find(connection, name, entry.version)

    def _alias(self, connection: sqlite3.Connection, name: str, reference: str, alias: str) -> Entry:
        entry = self._usable(connection, name, reference)
        if _aliases(connection, name).get(alias) != entry.version:
            _set_alias(connection, entry, alias)
        return entry

    def _rollback(self, connection: sqlite3.Connection, name: str, alias: str) -> tuple[Entry, Entry]:
        now = self._find(connection, name, alias or PRODUCTION)
        marks = ("aliased", alias) if alias else ("promoted", PRODUCTION)
        versions = [one.version for one in _changes(connection, name) if (one.what, one.detail) == marks]
        while versions and versions[-1] == now.version:
            versions.pop()
        usable = {one.version for one in entries_in(connection) if one.name == name and not one.recalled}
        earlier = [version for version in versions if version in usable and version != now.version]
        if not earlier:
            what = f"the alias {alias}" if alias else "production"
            hint = f"see: ilab registry history {name}"
            raise InputError(f"nothing usable came before {now.version} in {what}", where=name, hint=hint)
        if alias:
            return now, self._alias(connection, name, earlier[-1], alias)
        return now, self._promote(connection, name, earlier[-1], PRODUCTION)

    def _usable(self, connection: sqlite3.Connection, name: str, reference: str) -> Entry:
        entry = self._find(connection, name, reference)
        if entry.recalled:
            hint = f"take another version, or take the recall back: ilab registry recall {name} {entry.version} --undo"
            raise GateError(f"{name} {entry.version} was recalled: {entry.recalled}", where=name, hint=hint)
        return entry

    def _find(self, connection: sqlite3.Connection, name: str, reference: str) -> Entry:
        known = entries_in(connection)
        entries = [entry for entry in known if entry.name == name]
        if reference in ("", LATEST):
            found = [entry for entry in entries if not entry.recalled][-1:]
        elif reference in STAGES:
            found = [entry for entry in entries if entry.stage == reference][-1:]
        else:
            version = _aliases(connection, name).get(reference, reference)
            found = [entry for entry in entries if entry.version == version]
        if found:
            return found[0]
        names = ", ".join(f"{entry.name} {entry.version}" for entry in known)
        raise InputError(
            f"{name} {reference} is not registered".replace("  ", " "),
            where=self.registry.where,
            hint=f"registered: {names}" if known else "nothing is registered yet: ilab run",
        )


def _aliases(connection: sqlite3.Connection, name: str) -> dict[str, str]:
    rows = connection.execute("SELECT alias, version FROM aliases WHERE name = ? ORDER BY alias", (name,))
    return {str(alias): str(version) for alias, version in rows}


def _changes(connection: sqlite3.Connection, name: str) -> list[Change]:
    rows = connection.execute(
        "SELECT version, digest, what, detail, person, time FROM changes WHERE name = ? ORDER BY id", (name,)
    )
    return [Change(*row) for row in rows]


def _set_stage(connection: sqlite3.Connection, entry: Entry, stage: str) -> None:
    _set(connection, entry, "stage", stage)
    note_change(connection, entry, "promoted" if stage != "archived" else "archived", stage)


def _set_alias(connection: sqlite3.Connection, entry: Entry, alias: str) -> None:
    connection.execute(
        "INSERT INTO aliases (name, alias, version) VALUES (?, ?, ?)"
        " ON CONFLICT (name, alias) DO UPDATE SET version = excluded.version",
        (entry.name, alias, entry.version),
    )
    note_change(connection, entry, "aliased", alias)


def _set(connection: sqlite3.Connection, entry: Entry, column: Literal["stage", "recalled"], value: str) -> None:
    connection.execute(
        f"UPDATE entries SET {column} = ? WHERE (name, version, digest) = (?, ?, ?)",  # noqa: S608 - two constants
        (value, entry.name, entry.version, entry.digest),
    )

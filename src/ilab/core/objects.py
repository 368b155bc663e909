"""What a store needs of an object store, whatever that is: objects by name, and one conditional write.

Nothing here depends on a listing that is up to date: what must be found is found by its name. Servers go away for a
while, so every call goes through :func:`patiently`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ilab.errors import ServiceError

R = TypeVar("R")
PATIENCE = 120.0  # seconds that are waited for a server that is gone
SHORT = 10.0  # the same for what the next run can send as well
LONGEST = 15.0  # seconds between two tries
KEPT = "what was made is kept on this machine; run the same command again when the store answers"


@dataclass(frozen=True)
class Facts:
    """``size`` in bytes; ``etag`` changes with the contents; ``age`` in seconds, by the server's own clock."""

    size: int
    etag: str
    age: float


class Objects(Protocol):
    """Objects by name below one prefix. Every call raises ``ServiceError``, ``retryable`` where waiting may help."""

    address: str  # for people

    def get(self, name: str, *, unless: str = "") -> tuple[bytes, Facts] | None:
        """A small object, None where there is none; without its bytes where its ETag is ``unless``."""
        ...

    def stream(self, name: str, start: int) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of an object from ``start`` on."""
        ...

    def put(self, name: str, path: Path, sha256: str = "") -> None:
        """Send a file. With ``sha256`` an object that has these contents already is left."""
        ...

    def write(self, name: str, data: bytes, *, absent: bool = False, match: str = "") -> str:
        """Write a small object: always, only where there is none (``absent``), or in place of the one of an ETag.

        Returns the new ETag, ``""`` where the condition did not hold.
        """
        ...

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Names that begin with ``prefix``, with sizes in bytes."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        ...


def patiently(call: Callable[[], R], seconds: float | None = None) -> R:
    """``call()``, again and again while it fails with what may pass.

    Raises ``ServiceError`` after ``seconds`` (``PATIENCE``), and at once for what waiting does not mend.
    """
    pause, end = 0.5, time.monotonic() + (PATIENCE if seconds is None else seconds)
    while True:
        try:
            return call()
        except ServiceError as error:
            if not error.retryable:
                raise
            if time.monotonic() + pause > end:
                raise ServiceError(error.message, where=error.where, hint=KEPT, retryable=True) from error
        time.sleep(pause)
        pause = min(2 * pause, LONGEST)

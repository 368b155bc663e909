"""Secrets are given by reference, ``env:NAME`` or ``file:PATH``, and read at the last moment."""

from __future__ import annotations

import os
from pathlib import Path

from ilab.errors import InputError


def read_secret(reference: str, setting: str = "where.teacher.api_key") -> str:
    """The secret that ``env:NAME`` or ``file:PATH`` refers to; empty for none.

    Raises ``InputError``, which names the ``setting`` and never shows the value.
    """
    if not reference:
        return ""
    scheme, _, name = reference.partition(":")
    if scheme == "env" and name:
        if value := os.environ.get(name, "").strip():
            return _one_line(value, f"the environment variable {name}")
        raise InputError(f"the environment variable {name} is empty or not set", hint=f"type: export {name}=…")
    if scheme == "file" and name:
        try:
            return _one_line(Path(name).expanduser().read_text(encoding="utf-8").strip(), f"the file {name}")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise InputError(f"the key file cannot be read ({reason})", where=name) from error
    raise InputError(
        "a key is given by reference, never itself",
        where=setting,
        hint="write env:NAME (an environment variable) or file:PATH",
    )


def _one_line(value: str, source: str) -> str:
    """A key goes into a header: a line end in it would begin another one (RFC 9110, 5.5)."""
    if not value.isprintable():
        raise InputError(f"{source} holds no key: there are line ends or control characters in it")
    return value

"""System prompts by name. ``default`` and ``cli_helper`` are always there; ``chat.contexts`` adds others."""

from __future__ import annotations

from collections.abc import Mapping

from ilab.errors import InputError
from ilab.plugins import nearest

DEFAULT, CLI_HELPER = "default", "cli_helper"
HELPER_TEXT = (
    "You help somebody who works in a shell. Answer with the one command that does what is asked, for the shell that "
    "is named or else for bash. No explanation, no formatting, nothing but the command."
)


class Contexts:
    """``trained`` is the system prompt that the model was trained with, empty for none; ``own`` is ``chat.contexts``,
    which goes before the built-in ones."""

    def __init__(self, trained: str = "", own: Mapping[str, str] | None = None) -> None:
        self._texts = {DEFAULT: trained, CLI_HELPER: HELPER_TEXT, **(own or {})}

    @property
    def names(self) -> list[str]:
        return list(self._texts)

    def text(self, name: str) -> str:
        """The system prompt of that name, empty for none. Raises ``InputError`` for an unknown name."""
        if name not in self._texts:
            hint = f"{nearest(name, self.names)}; to add one: ilab config set chat.contexts.{name} TEXT"
            raise InputError(f"there is no context {name!r}", hint=hint)
        return self._texts[name]

    def listed(self) -> str:
        """All of them with their texts, for people."""
        return "\n".join(f"{name}\n  {text or '(no system prompt)'}" for name, text in self._texts.items())

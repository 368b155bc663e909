"""How a request is worded for one server and model, learnt from what it refuses.

Servers differ in what they take, and some models of one server differ too. A refusal (HTTP 400) costs nothing, so the
same request is put in other words and sent again; the wording that was taken is kept for the model. Nothing is worded
otherwise unless it was refused:

    max_tokens                  →  max_completion_tokens, where the server says so (OpenAI's newer models)
    held to a JSON schema       →  JSON mode  →  words, which are read as JSON all the same
    one of a list of answers    →  words

The request itself, which is its identity in the memo, stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Held = Literal["json_schema", "json_object", "choice"]
CHOICE_FIELDS = ("structured_outputs", "guided_choice")  # vLLM's names for a list of answers, the newer first


@dataclass(frozen=True, slots=True)
class Wording:
    """``limit`` is the name of the field for the most tokens, ``refused`` what answers cannot be held to."""

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    refused: frozenset[Held] = frozenset()

    def apply(self, fields: Mapping[str, Any], chat: bool = True) -> dict[str, Any]:
        """The fields of a request in this wording. Completions of plain text have the older name of the limit alone."""
        worded = dict(fields)
        if chat and self.limit != "max_tokens" and "max_tokens" in worded:
            worded[self.limit] = worded.pop("max_tokens")
        if _schema(worded) and "json_schema" in self.refused:
            worded["response_format"] = {"type": "json_object"}
        if "response_format" in worded and not _schema(worded) and "json_object" in self.refused:
            del worded["response_format"]
        if "choice" in self.refused:
            for name in CHOICE_FIELDS:
                worded.pop(name, None)
        return worded

    def other(self, fields: Mapping[str, Any], said: str) -> Wording | None:
        """What to try after ``fields`` were refused in this wording with the words ``said``; None for nothing."""
        if self.limit == "max_tokens" and "max_tokens" in fields and other_limit(said):
            return replace(self, limit="max_completion_tokens")
        worded = self.apply(fields)
        held: Held
        if "response_format" in worded:
            held = "json_schema" if _schema(worded) else "json_object"
        elif any(name in worded for name in CHOICE_FIELDS):
            held = "choice"
        else:
            return None
        return replace(self, refused=self.refused | {held})


AS_ASKED = Wording()


def other_limit(said: str) -> bool:
    """Whether a refusal says that the most tokens go by their newer name."""
    low = said.lower()
    return "max_completion_tokens" in low and "max_tokens" in low and ("instead" in low or "not supported" in low)


def _schema(fields: Mapping[str, Any]) -> bool:
    form = fields.get("response_format")
    return isinstance(form, Mapping) and form.get("type") == "json_schema"

"""Short and old spellings, as a table: alias -> (noun, verb, what it does)."""

from __future__ import annotations

ALIASES: dict[str, tuple[str, str, str]] = {
    "chat": ("model", "chat", "talk to a model"),
    "download": ("model", "download", "get models"),
    "generate": ("data", "generate", "make synthetic data"),
    "plan": ("pipeline", "plan", "what a build would do, and why"),
    "run": ("pipeline", "run", "build"),
    "status": ("pipeline", "status", "which steps are done, and how far the running one is"),
    "serve": ("model", "serve", "an OpenAI-compatible server"),
    "test": ("model", "test", "answers before and after training"),
    "train": ("model", "train", "train a model"),
}

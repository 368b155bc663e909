"""Short and old spellings, as a table: alias -> (noun, verb, what it does).

InstructLab's first versions had these commands without a noun. Its `list` and `check` looked at the taxonomy; `list`
has meant the models since. What the options of all of them become is in `upstream.yaml`.
"""

from __future__ import annotations

ALIASES: dict[str, tuple[str, str, str]] = {
    "advise": ("rag", "advise", "whether tuning, retrieval or both helped"),
    "chat": ("model", "chat", "talk to a model"),
    "check": ("taxonomy", "diff", "check what changed"),
    "convert": ("model", "convert", "a model as a GGUF file"),
    "diff": ("taxonomy", "diff", "list what changed, and check it"),
    "download": ("model", "download", "get models"),
    "generate": ("data", "generate", "make synthetic data"),
    "init": ("config", "init", "settings for this machine"),
    "list": ("model", "list", "the models on this machine"),
    "plan": ("pipeline", "plan", "what a build would do, and why"),
    "run": ("pipeline", "run", "build"),
    "serve": ("model", "serve", "an OpenAI-compatible server"),
    "status": ("pipeline", "status", "which steps are done, and how far the running one is"),
    "sysinfo": ("system", "info", "what this machine has"),
    "test": ("model", "test", "answers before and after training"),
    "train": ("model", "train", "train a model"),
}

"""Documents as the pipeline sees them: pinned files in, documents and chunks out.

The budget of a chunk is the smallest of three: ``tokens`` by the model's own tokenizer (or an estimate, where there
is none), ``words``, and what the teacher's context ``window`` leaves once the leaf's longest seed example, the prompt
around it and the answer have their room, so that no request of a shipped flow is ever too long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ilab.artifacts import Documents
from ilab.core.step import Counts, Found, Site
from ilab.data import Leaf, SeedExample
from ilab.documents.chunk import chunk_documents, estimate_tokens
from ilab.documents.collect import collect
from ilab.documents.untrusted import Policy
from ilab.errors import InputError

TOKENIZER = "tokenizer.json"
ANSWER_TOKENS = 2048  # the shipped flows ask for answers of at most so many
PROMPT_TOKENS = 512  # their templates, and the marks that a chat template adds
LEAST_TOKENS = 50  # a chunk under this teaches nothing


@dataclass(frozen=True)
class Limits:
    """Most ``tokens`` and ``words`` of a chunk, and the teacher's context ``window`` in tokens."""

    tokens: int
    words: int | None = None
    window: int | None = None


def find_tokenizer(locator: str, folder: Path) -> Found:
    """Resolve what counts tokens: a ``tokenizer.json``, or a model's directory that has one."""
    path = folder / Path(locator).expanduser()
    path = path / TOKENIZER if path.is_dir() else path
    if path.name != TOKENIZER or not path.is_file():
        hint = "give a model's directory or its tokenizer.json; without any, tokens are estimated"
        raise InputError("there is no tokenizer here", where=str(path), hint=hint)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Found(f"tokenizer:{digest}", locator, details={"path": str(path.parent)})


def collect_documents(
    leaves: Sequence[Leaf],
    found: tuple[str, str],
    limits: Limits,
    reading: tuple[str, str],
    out: Documents,
    site: Site,
) -> Counts:
    """Convert and cut the documents of ``leaves``.

    ``found`` are the digests of the pinned files and of the tokenizer, ``reading`` is (policy for untrusted text,
    converter).
    """
    sources, tokenizer = found
    policy, converter = reading
    documents = collect(
        leaves,
        site.locate(sources),
        policy=Policy.parse(policy),
        memo=site.memo("documents"),
        converter=converter,
        emit=site.emit,
    )
    count = _counter(tokenizer, site)
    chunks = chunk_documents(documents, budgets(leaves, limits, count), count, limits.words)
    written = out.write(documents, chunks)
    return {
        "documents": written[0],
        "chunks": written[1],
        "flags": sum(len(document.flags) for document in documents),
    }


def budgets(leaves: Sequence[Leaf], limits: Limits, count: Callable[[str], int]) -> dict[str, int]:
    """Most tokens of a chunk, by leaf. Raises ``InputError`` for a seed example that leaves no room in the window."""
    found = {}
    for leaf in leaves:
        found[leaf.path] = limits.tokens
        if limits.window is None or not leaf.documents:
            continue
        longest = max(leaf.seeds, key=lambda seed: count(_text(seed)))
        taken = count(_text(longest))
        room = limits.window - ANSWER_TOKENS - PROMPT_TOKENS - taken
        if room < LEAST_TOKENS:
            raise InputError(
                f"this seed example has {taken} tokens; with prompt and answer that fills the teacher's context of "
                f"{limits.window}",
                where=str(longest.place),
                hint="shorten its context, or take a teacher with a longer one (-p server_ctx_size=N)",
            )
        found[leaf.path] = min(limits.tokens, room)
    return found


def _text(seed: SeedExample) -> str:
    return "\n".join([seed.context or "", *(f"{pair.question}\n{pair.answer}" for pair in seed.pairs)])


def _counter(tokenizer: str, site: Site) -> Callable[[str], int]:
    if not tokenizer:
        return estimate_tokens
    from ilab.models.tokens import counter
    from ilab.transfer.base_model import look
    from ilab.transfer.open import access_of

    details = site.locate(tokenizer).details or {}
    folder = Path(details["path"])
    if not folder.is_dir() and details.get("address"):  # the plan was made on another machine
        folder = look(details["address"], access_of(site.where), site.emit).folder
        if find_tokenizer(str(folder), Path()).digest != tokenizer:
            message = "the tokenizer there is no longer the one that the plan was made with"
            raise InputError(message, where=details["address"], hint="make the plan again")
    return counter(folder)

"""A crawled page as a file: its name, its front matter, what counts as its text.

The name is made from the address (``docs-example-org-guide-install.md``), flat, so that ``markdown/*.md`` fits all.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from urllib.parse import unquote

MAX_NAME = 120  # bytes without suffix: file systems take 255, and people add folders
_PAGE_SUFFIX = re.compile(r"(?:/index)?\.(?:html?|xhtml|php|aspx?|jsp|shtml)$", re.IGNORECASE)
_FENCE = "---\n"
_MAX_FACT = 2000  # characters


def file_name(url: str, suffix: str, taken: Collection[str]) -> str:
    """A file name for the page at ``url`` that is not in ``taken`` (names in :func:`folded` form).

    Letters, digits and ``_`` of any script stay, everything else becomes ``-``. A name that is taken or would be
    too long ends with a hash of the address, so it does not depend on the order of the pages beyond who came first.
    """
    bare, mark, query = url.partition("://")[2].partition("?")
    bare = unquote(bare, errors="replace")
    bare = bare.removesuffix(suffix) if suffix != ".md" or bare.endswith(".md") else _PAGE_SUFFIX.sub("", bare)
    words = unicodedata.normalize("NFC", f"{bare}{mark}{unquote(query, errors='replace')}")
    name = re.sub(r"[^\w]+", "-", words).strip("-_") or "page"
    short = name.encode()[:MAX_NAME].decode(errors="ignore").strip("-_")
    if short != name or folded(f"{name}{suffix}") in taken:
        short = f"{short}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    return f"{short}{suffix}"


def folded(name: str) -> str:
    """What a file system that ignores case and normal form sees of ``name``."""
    return unicodedata.normalize("NFC", name.casefold())


def is_plain_name(name: str) -> bool:
    """Whether ``name`` is a visible file directly in a folder: nothing that leads elsewhere."""
    return bool(name) and not name.startswith(".") and not re.search(r"[/\\\x00-\x1f:]", name)


def front_matter(facts: Mapping[str, str]) -> str:
    """A line in quotes for every fact that is not empty, between two ``---``."""
    lines = [_FENCE]
    for name, value in facts.items():
        plain = "".join(sign for sign in " ".join(value.split()) if sign.isprintable())
        lines += [f"{name}: {json.dumps(plain[:_MAX_FACT], ensure_ascii=False)}\n"] if plain else []
    return "".join([*lines, _FENCE, "\n"]) if len(lines) > 1 else ""


def divided(data: bytes) -> tuple[dict[str, str], bytes]:
    """The facts of the front matter and what stands behind it, with ``\\n`` at line ends.

    Only facts in quotes are read, without a YAML parser: the file may be anybody's.
    """
    data = data.replace(b"\r\n", b"\n")
    head, mark, body = data.partition(b"\n---\n")
    if not mark or not head.startswith(b"---\n") or head.startswith(b"---\n\n"):
        return {}, data
    facts: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\n")[1:]:
        name, _, value = line.partition(": ")
        if value.startswith('"'):
            try:
                facts[name] = str(json.loads(value))
            except ValueError:
                continue
    return facts, body.removeprefix(b"\n")


def digest(data: bytes) -> str:
    """The hash of a file's contents without front matter: tells whether a text has changed."""
    return hashlib.sha256(divided(data)[1]).hexdigest()

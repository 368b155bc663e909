"""Errors and warnings about an author's files, for a terminal, for a program and for GitHub.

knowledge/a/qna.yaml:12:5: error: `seed_examples[0].contxt` is not a known key
    did you mean `context`?
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.taxonomy.lint import LintWarning


@dataclass(frozen=True)
class Finding:
    """One error or warning. ``file`` is relative to the taxonomy's root; ``line`` 0 means the whole file."""

    level: Literal["error", "warning"]
    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    code: str = ""

    def facts(self) -> dict[str, Any]:
        """The finding as JSON."""
        return dict(vars(self))


def of_errors(errors: Iterable[InputError], root: Path) -> list[Finding]:
    """Errors by file and place; one that names no line is about the whole file."""
    found = []
    for error in errors:
        match = re.fullmatch(r"(.*?)(?::(\d+):(\d+))?", error.where, re.DOTALL)
        file, line, column = match.groups() if match else (error.where, None, None)
        file = file.removeprefix(f"{root}/")
        found.append(Finding("error", file, int(line or 0), int(column or 1), error.message, error.hint))
    return sorted(found, key=lambda finding: (finding.file, finding.line, finding.column))


def of_warnings(warnings: Iterable[LintWarning]) -> list[Finding]:
    """Warnings in their order."""
    return [
        Finding("warning", at.place.file, at.place.line, at.place.column, at.message, at.hint, at.code)
        for at in warnings
    ]


def show(findings: Iterable[Finding], root: Path, *, err: bool = False) -> None:
    """A line each, with the hint below it."""
    colours = {"error": "red", "warning": "yellow"}
    for finding in findings:
        level = click.style(f"{finding.level}:", fg=colours[finding.level], bold=True)
        code = f" [{finding.code}]" if finding.code else ""
        where = click.style(printable(f"{place(finding, root)}:"), bold=True)
        click.echo(f"{where} {level} {printable(finding.message)}{code}", err=err)
        for line in finding.hint.splitlines():
            click.echo(printable(f"    {line}"), err=err)


def place(finding: Finding, root: Path) -> str:
    """``path:line:column``, the path as seen from the current folder."""
    numbers = f":{finding.line}:{finding.column}" if finding.line else ""
    return f"{near(root / finding.file)}{numbers}"


def near(path: Path) -> str:
    """``path`` relative to the current folder where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def annotate(findings: Iterable[Finding], root: Path) -> None:
    """Under GitHub Actions: mark each finding in the pull request, by workflow commands on standard error.

    Their paths are relative to the repository that ``root`` lies in, wherever that is checked out.
    """
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    root = root.resolve()
    outside = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), outside)
    for finding in findings:
        file = os.path.relpath((root / finding.file).resolve(), top)
        facts = {"file": file, "line": str(max(finding.line, 1)), "col": str(finding.column)}
        told = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in facts.items())
        text = _escaped(f"{finding.message}\n{finding.hint}".strip())
        click.echo(printable(f"::{finding.level} {told}::{text}"), err=True)


def printable(text: str) -> str:
    """``text`` without what a terminal would obey or cannot show; file names may hold anything."""
    plain = re.sub(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", lambda match: ascii(match[0])[1:-1], text)
    return plain.encode("utf-8", "backslashreplace").decode()


def _escaped(text: str, more: str = "") -> str:
    """GitHub's percent encoding of the characters that end a workflow command or a property of it."""
    return "".join(f"%{ord(sign):02X}" if sign in f"%\r\n{more}" else sign for sign in text)

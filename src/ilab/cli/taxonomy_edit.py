"""``ilab taxonomy fix`` and ``upgrade``: the two commands that rewrite what authors wrote."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError, InputErrors

if TYPE_CHECKING:
    from ilab.taxonomy.fix import Fix
    from ilab.taxonomy.rewrite import Change, Source

CHUNK_TOKENS = 500  # of a passage that becomes a context: some 350 words, and authors are asked for at most 500


@dataclass
class _Told:
    """What happened to one file: changes and a diff, or why it is left alone."""

    file: str
    changes: Sequence[Change] = ()
    renamed: str = ""
    drafts: int = 0
    diff: str = ""
    errors: list[InputError] = field(default_factory=list)

    def facts(self, root: Path) -> dict[str, Any]:
        """For JSON."""
        from ilab.cli import findings

        return {
            "file": self.file,
            "changes": [vars(change) for change in self.changes],
            "renamed": self.renamed,
            "drafts": self.drafts,
            "diff": self.diff,
            "errors": [finding.facts() for finding in findings.of_errors(self.errors, root)],
        }


@dataclass(frozen=True)
class _Outcome:
    """``written``: files were changed, not only looked at; ``next``: the command to type."""

    root: Path
    looked_at: int
    written: bool
    next: str


@click.command()
@click.argument("path", required=False)
@click.option("--check", is_flag=True, help="Change nothing; exit code 2 where something would be changed.")
@click.option("--diff", is_flag=True, help="Change nothing; print what would be changed as a diff.")
@click.pass_obj
def fix(options: Options, path: str | None, check: bool, diff: bool) -> None:
    """Put the formatting of qna.yaml and eval.yaml right; no text changes.

    Line ends, encoding, blanks, tabs, blank lines, file names; and texts that YAML cannot read because they need
    quotes. PATH is a taxonomy, a folder in it or one file; without it the sdg_repo_url of the project counts, or the
    current folder. A file with a mistake that has no evident mend is left alone: exit code 2.
    """
    from ilab.cli.leaves import taxonomy_path
    from ilab.taxonomy.fix import plan_fixes

    plans = list(plan_fixes(taxonomy_path(options, path)))
    written = not (check or diff)
    told = [_fixed(plan, written, diff) for plan in plans if plan.needed or plan.fixed.problem]
    right = any(not one.errors for one in told)
    following = f"ilab taxonomy {'fix' if right and not written else 'check'}{_argument(path)}"
    if any(one.errors for one in told):
        following = "mend the errors and type this again"
    outcome = _Outcome(plans[0].source.root, len(plans), written, following)
    _show(options, told, outcome, "fixed", "in order")
    if check and right:
        raise SystemExit(InputErrors.exit_code)


@click.command()
@click.argument("path", required=False)
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be changed.")
@click.option("--diff", is_flag=True, help="Change nothing; print what would be changed as a diff.")
@click.option("--drafts", is_flag=True, help="Write the new form even where something is missing, and mark the places.")
@click.pass_obj
def upgrade(options: Options, path: str | None, dry_run: bool, diff: bool, drafts: bool) -> None:
    """Rewrite qna.yaml files of versions 1 and 2 to version 3; comments, order and every text stay.

    In knowledge every pair gets the passage of the leaf's documents that answers it. PATH is a taxonomy, a folder in it
    or one file; without it the sdg_repo_url of the project counts, or the current folder. A file that lacks what
    version 3 asks for is left alone: exit code 2.
    """
    from ilab.cli.leaves import taxonomy_path
    from ilab.taxonomy.layout import QNA
    from ilab.taxonomy.rewrite import find_sources

    found = find_sources(taxonomy_path(options, path))
    sources = [source for source in found if source.wanted == QNA]
    written = not (dry_run or diff)
    tried = [_upgraded(options, source, drafts, diff, written) for source in sources]
    told = [one for one in tried if one.errors or one.changes]
    following = f"ilab taxonomy check{_argument(path)}"
    if any(one.errors for one in told):
        following = f"add what is missing, or have the places marked: ilab taxonomy upgrade{_argument(path)} --drafts"
    elif told and not written:
        following = f"ilab taxonomy upgrade{_argument(path)}{' --drafts' if drafts else ''}"
    elif any(one.drafts for one in told):
        following = f"complete the drafts, which do not count yet; this names them: {following}"
    _show(options, told, _Outcome(found[0].root, len(sources), written, following), "upgraded", "of version 3 already")


def _fixed(plan: Fix, written: bool, diff: bool) -> _Told:
    """Does what ``plan`` says if it is to be ``written``."""
    from ilab.taxonomy.fix import apply
    from ilab.taxonomy.rewrite import unified

    one = _Told(plan.source.name, plan.fixed.changes, plan.rename)
    try:
        if plan.fixed.problem is not None:
            raise plan.fixed.problem
        if written:
            apply(plan)
        if diff:
            one.diff = unified(_shown_text(plan.before), plan.fixed.text.decode(), one.file, plan.rename)
    except InputError as error:
        one.errors.append(error)
    return one


def _upgraded(options: Options, source: Source, drafts: bool, diff: bool, written: bool) -> _Told:
    """Upgrades one file, with the documents of its leaf where they are needed and can be had."""
    from ilab.taxonomy.rewrite import replace, unified
    from ilab.taxonomy.upgrade import upgrade_text, wants_passages
    from ilab.taxonomy.yamlnodes import decode

    one = _Told(source.name)
    try:
        if source.path.name != source.wanted:
            hint = f"ilab taxonomy fix {shlex.quote(source.name)}"
            raise InputError(f"must be named {source.wanted}", where=f"{source.name}:1:1", hint=hint)
        text = decode(source.read(), source.name)
        passages = _passages(options, source) if wants_passages(text, source.name) else []
        upgraded = upgrade_text(text, source.name, passages, drafts=drafts)
        if upgraded.missing and not drafts:
            raise InputErrors(list(upgraded.missing))
        one.changes, one.drafts = upgraded.changes, upgraded.drafts
        if written and upgraded.changes:
            replace(source, upgraded.text)
        if diff:
            one.diff = unified(text, upgraded.text, one.file)
    except InputErrors as errors:
        one.errors += errors.errors
    except InputError as error:
        one.errors.append(error)
    return one


def _passages(options: Options, source: Source) -> list[str]:
    """The passages of the leaf's documents; what cannot be had is told, on standard error, and left out."""
    from ilab.cli import findings
    from ilab.documents.chunk import chunk_documents
    from ilab.documents.collect import Reading, read_documents
    from ilab.documents.locate import survey_documents
    from ilab.taxonomy.layout import Layout
    from ilab.taxonomy.read import read_leaves

    leaves, problems = read_leaves(Layout(source.root, (source.path,)))
    if problems:
        raise InputErrors(problems)
    loaded = options.load()
    survey = survey_documents(leaves, source.root, loaded.config.where, base=loaded.base)
    documents, unread = read_documents(leaves, survey.found, Reading())
    for problem in (*survey.problems, *unread):
        at = problem.where if problem.where.startswith(source.name) else f"{source.name}:1:1"
        about = "" if at == problem.where or not problem.where else f"{problem.where}: "
        message = f"documents that cannot be had are passed over: {about}{problem.message}"
        (finding,) = findings.of_errors([InputError(message, where=at, hint=problem.hint)], source.root)
        findings.show([dataclasses.replace(finding, level="warning")], source.root, err=True)
    return [part.text for part in chunk_documents(documents, CHUNK_TOKENS)]


def _show(options: Options, told: Sequence[_Told], outcome: _Outcome, done: str, else_: str) -> None:
    """What happened to each file, and how many there are of each sort; files left alone end with exit code 2."""
    from ilab.cli import findings
    from ilab.cli.leaves import counted

    if options.as_json:
        options.result({**vars(outcome), "root": str(outcome.root), "files": [one.facts(outcome.root) for one in told]})
    else:
        for one in told:
            _show_file(one, outcome.root)
    wrong = sum(bool(one.errors) for one in told)
    if not options.as_json:
        did = done if outcome.written else f"would be {done}"
        left = f", {wrong} left alone" if wrong else ""
        counts = f"{counted(len(told) - wrong, 'file')} {did}{left}, {outcome.looked_at - len(told):,} {else_}"
        click.echo(findings.printable(f"{counts}. Next: {outcome.next}"))
    if wrong:
        raise SystemExit(InputErrors.exit_code)


def _show_file(one: _Told, root: Path) -> None:
    """Its errors; else the diff, or a line for each change."""
    from ilab.cli import findings

    if one.errors:
        findings.show(findings.of_errors(one.errors, root), root)
        return
    at = findings.near(root / one.file)
    lines = one.diff.split("\n") if one.diff else [f"{at}:{change.line}: {change.what}" for change in one.changes]
    if one.renamed:
        lines.append(f"{at}: renamed to {one.renamed}")
    if one.drafts:
        lines.append(f"{at}: {one.drafts} place(s) marked `draft: true` for you to complete")
    for line in lines:
        click.echo(findings.printable(line))


def _argument(path: str | None) -> str:
    return f" {shlex.quote(path)}" if path else ""


def _shown_text(data: bytes) -> str:
    """The old contents for a diff, as far as they are text."""
    from ilab.taxonomy.yamlnodes import decode

    try:
        return decode(data, "")
    except InputError:
        return data.decode("utf-8", "backslashreplace")

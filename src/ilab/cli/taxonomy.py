"""``ilab taxonomy``: write leaves, and look at them before anything is built from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.leaves import counted, document_facts, local_documents, show_documents, taxonomy_path, verified
from ilab.cli.taxonomy_edit import fix, upgrade
from ilab.cli.taxonomy_new import draft, init, new
from ilab.cli.taxonomy_review import review
from ilab.errors import IlabError, InputError, InputErrors

if TYPE_CHECKING:
    from rich.tree import Tree

    from ilab.data import Leaf
    from ilab.taxonomy.changes import Changes
    from ilab.taxonomy.lint import LintWarning


@click.group(name="taxonomy")
def group() -> None:
    """Write, check and compare taxonomies."""


@group.command()
@click.argument("path", required=False)
@click.option("--documents", is_flag=True, help="Fetch, convert and cut the documents too, and say what is in them.")
@click.pass_obj
def check(options: Options, path: str | None, documents: bool) -> None:
    """Name every mistake in a taxonomy, and what is probably not meant.

    PATH is its folder or one qna.yaml; without it the sdg_repo_url of the project counts, or the current folder.
    Mistakes end with exit code 2, warnings with 0.
    """
    from ilab.cli import findings
    from ilab.taxonomy.layout import find_layout
    from ilab.taxonomy.lint import lint, passed_over
    from ilab.taxonomy.read import read_leaves

    layout = find_layout(taxonomy_path(options, path))
    notes: list[LintWarning] = []
    leaves, problems = read_leaves(layout, notes)
    window = options.load().config.parameters.get("server_ctx_size")
    linted = lint(leaves, local_documents(leaves, layout.root), notes=notes, window=int(window) if window else None)
    seen = verified(options, leaves, layout.root) if documents else None
    wrong = [problem for problem in seen.problems if isinstance(problem, InputError)] if seen else []
    errors = findings.of_errors([*problems, *wrong], layout.root)
    warnings = findings.of_warnings([*passed_over(layout.warnings), *linted])
    findings.annotate([*errors, *warnings], layout.root)
    counts = [
        counted(len(layout.files), "leaf", "leaves"),
        counted(sum(len(leaf.seeds) for leaf in leaves), "seed example"),
    ]
    if options.as_json:
        facts = {
            "root": str(layout.root),
            "leaves": len(layout.files),
            "valid": not errors,
            "errors": [finding.facts() for finding in errors],
            "warnings": [finding.facts() for finding in warnings],
        }
        options.result(facts | (document_facts(seen) if seen else {}))
    else:
        findings.show([*errors, *warnings], layout.root)
        counts += show_documents(seen) if seen else []
        told = f"{counted(len(errors), 'error')}, {counted(len(warnings), 'warning')}"
        following = "mend the errors and type this again" if errors else "ilab plan"
        click.echo(f"{', '.join(counts)}: {told}. Next: {following}")
    if errors:
        raise SystemExit(InputErrors.exit_code)
    for problem in seen.problems if seen else ():
        raise problem  # a server that cannot be reached: not the author's mistake, and not verified either


@group.command()
@click.option(
    "--taxonomy-base", metavar="REF", help="Branch, tag or commit, or `empty` for all.  [default: origin/main]"
)
@click.option("--taxonomy-path", metavar="PATH", help="Folder of the taxonomy, or one qna.yaml.")
@click.option("--quiet", is_flag=True, help="Print nothing; the exit code tells.")
@click.option(
    "--yaml-rules",
    type=click.Path(exists=True, dir_okay=False),
    help="Accepted for older scripts: formatting is never an error, so no rules are needed.",
)
@click.pass_obj
def diff(
    options: Options, taxonomy_base: str | None, taxonomy_path: str | None, quiet: bool, yaml_rules: str | None
) -> None:
    """List the leaves that changed since a base, and check them.

    Changed are files that git does not know yet, and those that differ between the work tree and the first ancestor
    of HEAD that the base contains. Mistakes in them end with exit code 2.
    """
    try:
        errors = _diff(options, taxonomy_base, taxonomy_path, None if quiet else yaml_rules, quiet)
    except IlabError as error:
        if not quiet:
            raise
        raise SystemExit(error.exit_code) from error
    if errors:
        raise SystemExit(InputErrors.exit_code)


def _diff(options: Options, base: str | None, given: str | None, yaml_rules: str | None, quiet: bool) -> int:
    """The number of errors in the leaves that changed; prints all there is to say unless ``quiet``."""
    from ilab.cli import findings
    from ilab.documents.locate import fitting
    from ilab.taxonomy.changes import find_changes
    from ilab.taxonomy.read import read_leaves

    path = taxonomy_path(options, given)
    shown = given or str(path)
    changes = find_changes(path, base, fitting)
    root = changes.layout.root
    errors = findings.of_errors(read_leaves(changes.layout)[1], root)
    if quiet:
        return len(errors)
    findings.annotate(errors, root)
    if yaml_rules is not None:
        click.echo("--yaml-rules is not needed: formatting is never an error here", err=True)
    if base is None and changes.base == "main":
        click.echo("compared with main, because there is no branch origin/main", err=True)
    if options.as_json:
        facts = {
            "root": str(root),
            "base": changes.base,
            "commit": changes.commit,
            "changed": list(changes.files),
            "beside": {leaf: list(names) for leaf, names in changes.beside.items()},
            "passed_over": dict(changes.passed_over),
            "valid": not errors,
            "errors": [finding.facts() for finding in errors],
        }
        options.result(facts)
        return len(errors)
    for name in changes.leaves:
        click.echo(findings.printable(given if path.is_file() and given else name))
    _notes(changes)
    findings.show(errors, root, err=True)
    if errors:
        files = len({finding.file for finding in errors})
        told = f"{counted(len(errors), 'error')} in {counted(files, 'file')}"
        click.echo(f"{told}. Next: mend them and type this again", err=True)
    else:
        click.secho(findings.printable(f"Taxonomy in {shown} is valid :)"), fg="green")
    return len(errors)


def _notes(changes: Changes) -> None:
    """On standard error: why a leaf is listed whose qna.yaml did not change, and what was looked at for nothing."""
    from ilab.cli.findings import printable

    for leaf, names in changes.beside.items():
        click.echo(printable(f"{leaf}: changed beside it: {', '.join(names)}"), err=True)
    nothing = not changes.leaves
    if nothing:
        since = f"{changes.base} (commit {changes.commit[:10]})"
        looked = counted(changes.seen, "changed or untracked file")
        click.echo(f"no leaf changed since {since}; {looked} looked at in {changes.layout.root}", err=True)
    for name, why in changes.passed_over.items():
        if nothing or why.startswith("must"):
            click.echo(printable(f"{name}: not listed: {why}"), err=True)


@group.command()
@click.argument("path", required=False)
@click.pass_obj
def tree(options: Options, path: str | None) -> None:
    """Draw the tree of leaves with what is in them.

    PATH is the taxonomy's folder or one qna.yaml; without it the sdg_repo_url of the project counts, or the current
    folder. Documents are the local files that the leaf's patterns fit; those in git repositories are not fetched.
    """
    from ilab.taxonomy.read import read_taxonomy

    reading = read_taxonomy(taxonomy_path(options, path))
    documents = local_documents(reading.leaves, reading.root)
    rows = {leaf.path: _counts(leaf, documents.get(leaf.path, {})) for leaf in reading.leaves}
    if options.as_json:
        options.result({"root": str(reading.root), "leaves": rows, "total": _sum(list(rows.values()))})
        return
    from ilab.cli.render import console

    console().print(_draw(str(reading.root), rows))


def _counts(leaf: Leaf, documents: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "kind": leaf.kind,
        "seeds": len(leaf.seeds),
        "pairs": sum(len(seed.pairs) for seed in leaf.seeds),
        "documents": len({name for names in documents.values() for name in names}),
        "git_patterns": sum(len(ref.patterns) for ref in leaf.documents if ref.repo is not None),
        "dev": sum(item.split == "dev" for item in leaf.items),
        "test": sum(item.split == "test" for item in leaf.items),
    }


def _sum(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    names = ("seeds", "pairs", "documents", "git_patterns", "dev", "test")
    return {"leaves": len(rows), **{name: sum(row[name] for row in rows) for name in names}}


def _told(row: dict[str, Any]) -> str:
    """``5 seeds, 15 pairs, 1 document, held out: 10 dev, 40 test``"""
    parts = [counted(row["leaves"], "leaf", "leaves")] if "leaves" in row else [row["kind"]]
    parts += [counted(row["seeds"], "seed"), counted(row["pairs"], "pair")]
    if row["documents"]:
        parts.append(counted(row["documents"], "document"))
    if row["git_patterns"]:
        parts.append(f"{counted(row['git_patterns'], 'document pattern')} in git")
    if row["dev"] or row["test"]:
        parts.append(f"held out: {row['dev']} dev, {row['test']} test")
    return ", ".join(parts)


def _draw(root: str, rows: dict[str, dict[str, Any]]) -> Tree:
    """A branch for every folder, with the sum below it where it holds more than one leaf."""
    from rich.text import Text
    from rich.tree import Tree

    def label(name: str, row: dict[str, Any], style: str) -> Text:
        return Text(name, style=style).append(f"  {_told(row)}", style="dim")

    below: dict[str, list[dict[str, Any]]] = {}
    for path, row in rows.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            below.setdefault("/".join(parts[:depth]), []).append(row)
    drawn = {"": Tree(label(root, _sum(list(rows.values())), "bold"))}
    for path in sorted({*below, *rows}, key=lambda path: path.split("/")):
        parent, _, name = path.rpartition("/")
        inner = _sum(below[path]) if path in below else None
        drawn[path] = drawn[parent].add(label(name, rows.get(path) or inner or {}, "" if path in rows else "bold"))
    return drawn[""]


for command in (draft, fix, init, new, review, upgrade):
    group.add_command(command)

"""``ilab taxonomy review``: what a contribution would change, as the comment under a pull request."""

from __future__ import annotations

import click

from ilab.cli.app import Options
from ilab.cli.leaves import local_documents, taxonomy_path
from ilab.cli.outputs import output_file
from ilab.errors import InputErrors


@click.command()
@click.argument("path", required=False)
@click.option(
    "--taxonomy-base", metavar="REF", help="Branch, tag or commit, or `empty` for all.  [default: origin/main]"
)
@click.option(
    "--samples", type=click.IntRange(0), default=2, show_default=True, metavar="N", help="Input rows of each leaf."
)
@click.option("--max-calls", type=click.IntRange(1), default=30, show_default=True, help="Most teacher calls.")
@click.option("--output", metavar="FILE", help="Write the comment (Markdown) to a file.")
@click.pass_obj
def review(
    options: Options, path: str | None, taxonomy_base: str | None, samples: int, max_calls: int, output: str | None
) -> None:
    """Say what a contribution would change: leaves, mistakes, calls and cost, a few samples.

    The comment that the workflows of `ilab taxonomy init` put under a pull request. Mistakes end with exit code 2.
    """
    from ilab.actions import Part
    from ilab.cli import findings
    from ilab.cli.threads import passive_threads
    from ilab.core.files import write_text
    from ilab.documents.locate import fitting
    from ilab.review import MARK, Look, Review, facts, look, render, touched
    from ilab.taxonomy.changes import EMPTY, find_changes
    from ilab.taxonomy.lint import LintWarning, lint
    from ilab.taxonomy.read import read_leaves
    from ilab.taxonomy.worktree import held_at

    passive_threads()
    target = output_file(options, output, lambda text: text.startswith(MARK)) if output else None
    loaded = options.load()
    folder = taxonomy_path(options, path)
    changes = find_changes(folder, taxonomy_base, fitting)
    root = changes.layout.root
    notes: list[LintWarning] = []
    leaves, errors = read_leaves(changes.layout, notes)
    warnings = lint(leaves, local_documents(leaves, root), notes=notes)
    names = [changes.layout.name(file) for file in changes.layout.files]
    known = held_at(root, changes.commit, names) if changes.commit else frozenset[str]()
    seen = Look()
    if leaves and not errors and samples:
        click.echo("making a few samples …", err=True)
        seen, errors = look(loaded, folder, changes.base or EMPTY, Part("generate", samples, max_calls, look=True))
    teacher = loaded.config.where.teacher
    found = Review(
        base=changes.base or str(folder),
        commit=changes.commit,
        touched=touched(changes, leaves, known),
        deleted=tuple(name for name, why in changes.passed_over.items() if why == "was deleted"),
        errors=tuple(errors),
        warnings=tuple(warnings),
        look=seen,
        currency=teacher.currency if teacher else "",
    )
    findings.annotate([*findings.of_errors(errors, root), *findings.of_warnings(warnings)], root)
    text = render(found)
    if target:
        write_text(target, text)
        click.echo(f"the comment is in {output}", err=True)
    if options.as_json:
        options.result(facts(found))
    elif not output:
        click.echo(text, nl=False)
    if errors:
        raise SystemExit(InputErrors.exit_code)

"""``ilab taxonomy init``, ``new`` and ``draft``: from nothing to a leaf whose author has only to correct."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.teacher import served, tell_teacher

if TYPE_CHECKING:
    from ilab.drafts import Proposal
    from ilab.taxonomy.new_leaf import NewLeaf
    from ilab.taxonomy.seed_list import Written

LICENCES = ("apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "none")
DOCUMENT = click.option(
    "--document",
    "documents",
    multiple=True,
    metavar="FILE|URL|REPO@COMMIT:PATTERN",
    help="Where the facts stand; may be given several times. A file from elsewhere is copied beside the leaf.",
)
AUTHOR = click.option("--author", metavar="NAME", help="Who answers for the leaf.  [default: the name git knows]")
TAXONOMY = click.option("--taxonomy-path", metavar="DIR", help="Folder of the taxonomy.")


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--license", "licence", type=click.Choice(LICENCES), default=LICENCES[0], show_default=True)
@click.option("--no-git", is_flag=True, help="Make no git repository.")
@click.option("--force", is_flag=True, help="Add what is missing to a folder that holds files. Overwrites nothing.")
@click.pass_obj
def init(options: Options, folder: str, licence: str, no_git: bool, force: bool) -> None:
    """Make an empty taxonomy repository in DIR.

    It has the three roots, a guide for contributors, forms for pull and merge requests, workflows that check them, and
    an ilab.yaml, so that it can be built as it stands.
    """
    from ilab.cli.findings import near, printable
    from ilab.cli.leaves import counted
    from ilab.taxonomy.scaffold import make_repository

    root = (options.directory / Path(folder).expanduser()).absolute()
    made = make_repository(root, licence=licence, force=force, git=not no_git)
    following = f"cd {near(root)} && ilab taxonomy new knowledge/science/my_topic --document FILE"
    if options.as_json:
        options.result({**vars(made), "next": following})
        return
    what = "an empty taxonomy" if not made.kept else "what was missing to the taxonomy"
    kept = f", {len(made.kept)} left as they were" if made.kept else ""
    click.echo(printable(f"Made {what} in {near(root)}: {counted(len(made.written), 'file')}{kept}"))
    if made.git:
        click.echo(printable(f"git: {made.git}"))
    click.echo(printable(f"Next: {following}"))


@click.command()
@click.argument("path")
@click.option(
    "--kind",
    type=click.Choice(["knowledge", "grounded", "freeform"]),
    help="What it teaches. Needed only where PATH does not begin with a root of the taxonomy.",
)
@DOCUMENT
@click.option("--eval", "held_out", is_flag=True, help="Add a form for held-out questions, eval.yaml.")
@AUTHOR
@TAXONOMY
@click.pass_obj
def new(options: Options, /, path: str, taxonomy_path: str | None, **given: Any) -> None:
    """Make the forms of a new leaf at PATH, such as knowledge/science/my_topic.

    Each place to fill in is empty; `ilab taxonomy check` names those that still are. Nothing is overwritten.
    """
    from ilab.cli.findings import near, printable

    made = _make(options, path, taxonomy_path, given)
    form = near(made.root / made.path / "qna.yaml")
    drafted = f"ilab taxonomy draft {made.path}" if given["documents"] else ""
    if options.as_json:
        following = drafted or "ilab taxonomy check"
        options.result({**vars(made), "next": following})
        return
    for name in made.files:
        click.echo(printable(near(made.root / name)))
    propose = f"; for seed examples to begin with: {drafted}" if drafted else ""
    click.echo(printable(f"Next: fill in {form}, then: ilab taxonomy check{propose}"))


@click.command()
@click.argument("leaf")
@DOCUMENT
@click.option("--count", type=click.IntRange(1), help="How many seed examples.  [default: what is missing to five]")
@click.option(
    "--model", default="", metavar="NAME|PATH", help="The teacher: as a server calls it, or a downloaded model."
)
@click.option("--dry-run", is_flag=True, help="Print the drafts and write nothing.")
@AUTHOR
@TAXONOMY
@click.pass_obj
def draft(options: Options, /, leaf: str, taxonomy_path: str | None, **given: Any) -> None:
    """Propose seed examples for LEAF from its documents: with a teacher, or by rule where there is none.

    LEAF is its path in the taxonomy, or its qna.yaml. With --document a leaf that is not there yet is made first.
    Drafts carry `draft: true` and do not count until a person has read them and removed that line.
    """
    from ilab.cli.leaves import taxonomy_path as find_root
    from ilab.drafts import add, find_leaf, propose
    from ilab.errors import InputError
    from ilab.taxonomy.new_leaf import unmake_leaf
    from ilab.teacher_at_hand import find_teacher, reached

    file = find_leaf(find_root(options, taxonomy_path), options.directory, leaf)
    if file is not None and given["documents"]:
        hint = "write the document below `document:` in it, then type this again without --document"
        raise InputError("this leaf exists already", where=str(file), hint=hint)
    if file is None and not given["documents"]:
        hint = f"make it from a document: ilab taxonomy draft {leaf} --document FILE"
        raise InputError(f"there is no leaf {leaf!r}", hint=hint)
    loaded = options.load()
    name = given["model"] or str(loaded.config.parameters.get("sdg_teacher_model") or "")
    teacher = find_teacher(loaded, name, otherwise="to draft by rule: leave --model out", here=options.directory)
    tell_teacher(teacher)
    if not teacher.name:
        told = (
            "note: no teacher is at hand: drafts are made by rule from the text, not by a language model. "
            "For a teacher: ilab model download, or --set where.teacher.url=URL --model NAME"
        )
        click.echo(told, err=True)
    made = None
    if file is None:
        made = _make(options, leaf, taxonomy_path, {**given, "kind": None, "held_out": False})
        file = made.root / made.path / "qna.yaml"
    try:
        with served(teacher) as address:
            loaded = reached(teacher, address)
            proposal = propose(loaded, file, count=given["count"], model=teacher.name, tell=_tell)
        waiting = proposal.leaf.drafts if given["dry_run"] else add(proposal)
    except BaseException:
        if made is not None:
            unmake_leaf(made)
        raise
    if made is not None and given["dry_run"]:
        unmake_leaf(made)
    if made is not None and not given["dry_run"] and not options.as_json:
        click.echo(f"made the leaf {made.path}: {len(made.files)} files")
    _report(options, proposal, waiting, dry_run=given["dry_run"])


def _make(options: Options, path: str, taxonomy_path: str | None, given: dict[str, Any]) -> NewLeaf:
    """The forms of a new leaf."""
    from ilab.cli.leaves import taxonomy_path as find_root
    from ilab.taxonomy.new_leaf import make_leaf
    from ilab.taxonomy.scaffold import author_of

    root = find_root(options, taxonomy_path).absolute()
    author = given["author"]
    if author is None:
        author = author_of(root)
        if not author and sys.stdin.isatty() and not options.as_json:
            author = click.prompt("Your name, or your name on GitHub", default="", show_default=False)
    what = {name: given[name] for name in ("kind", "documents", "held_out")}
    return make_leaf(root, path, base=options.directory, author=author, **what)


def _tell(line: str) -> None:
    from ilab.cli.findings import printable

    click.echo(printable(line), err=True)


def _report(options: Options, proposal: Proposal, waiting: tuple[Written, ...], *, dry_run: bool) -> None:
    """What was proposed, what was refused and why, and what to do now."""
    from ilab.cli.findings import near, printable
    from ilab.cli.leaves import counted
    from ilab.taxonomy.seed_list import shown

    file = near(proposal.leaf.path.absolute())
    if options.as_json:
        facts = {name: value for name, value in vars(proposal).items() if name not in ("leaf", "drafts")}
        drafts = [vars(one) for one in proposal.drafts]
        options.result({**facts, "file": file, "drafts": drafts, "waiting": [seed.line for seed in waiting]})
        return
    if dry_run and proposal.drafts:
        for line in shown(proposal.drafts).split("\n"):
            click.echo(printable(line))
    for reason, times in proposal.refused.items():
        click.echo(printable(f"refused: {times} × {reason}"), err=True)
    if proposal.by:
        click.echo(printable(f"{proposal.by}: {proposal.calls} calls, {proposal.from_memo} from memo"), err=True)
    if len(proposal.drafts) < proposal.wanted:
        fewer = f"{len(proposal.drafts)} of {proposal.wanted} drafts: the documents gave no more"
        click.echo(fewer, err=True)
    if not proposal.wanted:
        click.echo(printable(f"Nothing is missing: {file} has {counted(len(proposal.leaf.seeds), 'seed example')}"))
    if dry_run:
        click.echo("Nothing is written. Next: the same without --dry-run")
        return
    for seed in waiting:
        click.echo(printable(f"{file}:{seed.line}: draft with {counted(len(seed.pairs), 'question')}"))
    if waiting:
        click.echo(f"{counted(len(waiting), 'draft')} waiting. None counts before a person has read it.")
        click.echo("Next: read each, correct it, remove its line `draft: true`; then: ilab taxonomy check")
    else:
        click.echo("Next: ilab taxonomy check")

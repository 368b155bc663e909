"""``ilab config init``: look at the machine, get the taxonomy, write the first file of settings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.errors import InputError
from ilab.homes import expanded

if TYPE_CHECKING:
    from ilab.hardware import Hardware
    from ilab.profiles import Profile

REPOSITORY = "https://github.com/instructlab/taxonomy.git"
HEAD = """Settings of ilab. To see all of them, with what they are: ilab config show
To change one: ilab config set PATH VALUE, or ilab config edit"""
IN_PROJECT_HEAD = """A project is a folder with this file. To build it: ilab run
All settings, with what they are: ilab config show"""


@dataclass
class _Answers:
    """What shall be written: settings by dotted path, each perhaps with a comment."""

    settings: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)

    def put(self, path: str, value: Any, comment: str = "") -> None:
        self.settings[path] = value
        if comment:
            self.comments[path] = comment


@click.command()
@click.option("--interactive/--non-interactive", default=True, help="Ask, or take every default.")
@click.option("--model-path", metavar="PATH", help="Model to serve and chat with until a build has made one.")
@click.option("--taxonomy-base", metavar="REF", help="Only leaves that changed since this ref; `empty`: all of them.")
@click.option("--taxonomy-path", metavar="DIR", help="Where the taxonomy is, or shall be cloned to.")
@click.option("--repository", metavar="URL", help=f"Taxonomy to clone.  [default: {REPOSITORY}]")
@click.option("--min-taxonomy", is_flag=True, help="Clone the last commit alone, without history.")
@click.option("--profile", metavar="NAME|FILE", help="Profile of this machine, in place of the one that fits.")
@click.option("--config", "template", metavar="FILE", envvar="ILAB_GLOBAL_CONFIG", help="Begin with these settings.")
@click.option("--project", is_flag=True, help="Write an ilab.yaml here, in place of the user's file.")
@click.pass_obj
def init(options: Options, /, interactive: bool, project: bool, **given: Any) -> None:
    """Look at this machine, clone a taxonomy, and write ~/.config/instructlab/config.yaml.

    It asks, in this order: whether to write over a file that is there; where the taxonomy is; whether to clone one,
    where nothing is there; which model to serve, where the models folder is there. An empty line takes what stands in
    brackets. With --config nothing but the first is asked.

    For example: ilab config init --non-interactive --repository https://github.com/instructlab/taxonomy.git
    """
    from ilab.config import PROJECT_FILE, user_file
    from ilab.hardware import detect

    target = options.directory / PROJECT_FILE if project else options.user_file() or user_file()
    if target.exists() and interactive and not click.confirm(f"{target} is there. Write it anew?", err=True):
        click.echo("nothing was changed", err=True)
        return
    machine = detect()
    answers = _from_template(options, given["template"])
    profile = _choose_profile(answers, options, given["profile"], machine, project)
    _choose_taxonomy(answers, options, given, project, interactive)
    _choose_model(answers, given["model_path"], interactive and not project and not given["template"])
    _write(target, answers, project)
    _tell(options, target, answers, profile, machine)


def _from_template(options: Options, template: str | None) -> _Answers:
    """The settings to begin with; those of InstructLab's are translated."""
    from ilab.config_edit import settings_of
    from ilab.config_source import read_source
    from ilab.migrate import is_instructlab, translate

    if not template:
        return _Answers()
    source = read_source(options.directory / expanded(template))
    tree = source.tree
    if is_instructlab(tree):
        found = translate(source)
        click.echo(f"note: {found.summary(source.path)}", err=True)
        tree = found.tree
    return _Answers(settings_of(tree))


def _choose_profile(
    answers: _Answers, options: Options, named: str | None, machine: Hardware, project: bool
) -> Profile | None:
    """The profile: as named, as the template has it, else the one that fits. A project leaves it to its users."""
    from ilab.config_source import read_source
    from ilab.migrate import is_instructlab
    from ilab.profiles import choose, find_profile

    path = options.directory / expanded(named) if named else None
    if path and path.is_file():
        if is_instructlab(read_source(path).tree):  # InstructLab's profiles are whole files of settings
            answers.settings.update(_from_template(options, str(path)).settings)
            named = None
        else:
            named = str(path.resolve())
    named = named or answers.settings.get("profile")
    if project and not named:
        return None
    if os.environ.get("ILAB_SYSTEM_PROFILE_DIR"):
        click.echo(
            "note: ILAB_SYSTEM_PROFILE_DIR is not read; give a profile of your own with --profile FILE", err=True
        )
    profile = find_profile(named, options.directory, "--profile") if named else choose(machine)
    answers.put("profile", named or profile.name, f"for: {machine}" if not named else "")
    devices = profile.fits.devices if profile.fits else 1
    if not named and machine.kind == "gpu" and len(machine.gpus) > devices and profile.fits:
        answers.put("where.train.processes", len(machine.gpus), "one for each GPU")
    return profile


def _choose_taxonomy(
    answers: _Answers, options: Options, given: dict[str, Any], project: bool, interactive: bool
) -> None:
    """Where the taxonomy is; it is cloned where nothing is there yet."""
    from ilab.config import data_home
    from ilab.core import git

    asked = given["taxonomy_path"] or answers.settings.get("parameters.sdg_repo_url")
    asking = interactive and not given["template"]
    default = asked or ("taxonomy" if project else str(data_home() / "taxonomy"))
    asked = str(click.prompt("Path of the taxonomy", default=default, err=True)) if asking else default
    folder = options.directory / expanded(asked)
    if not project:
        asked = str(folder.resolve())
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        if given["repository"] and folder.is_dir():
            _check_origin(folder, _address(options, given["repository"]))
            click.echo(f"note: {folder} is not empty, so nothing is cloned", err=True)
    else:
        url = given["repository"] or REPOSITORY
        question = f"{folder} is empty. Clone {git.redacted(url)}?"
        if not asking or click.confirm(question, default=True, err=True):
            _clone(options, url, folder, given["min_taxonomy"])
        elif not folder.exists():
            click.echo(f"note: there is no taxonomy yet; to begin one: ilab taxonomy init {asked}", err=True)
    answers.put("parameters.sdg_repo_url", asked, "the taxonomy")
    base = given["taxonomy_base"] or answers.settings.get("parameters.taxonomy_base")
    base = base or ("" if project else git.upstream_branch(folder))
    if base:
        answers.put("parameters.taxonomy_base", base, "only leaves that changed since then; `empty`: all of them")


def _clone(options: Options, url: str, folder: Path, shallow: bool) -> None:
    from ilab.core import git

    url = _address(options, url)
    click.echo(f"cloning {git.redacted(url)}", err=True)
    hint = "give another address with --repository URL, or a taxonomy that is here with --taxonomy-path DIR"
    git.clone(git.Origin(url, where="--repository", hint=hint), folder, shallow)


def _address(options: Options, url: str) -> str:
    """What git is to be given: a folder of this machine as a whole path."""
    from ilab.core import git

    return url if git.is_url(url) else str((options.directory / expanded(url)).resolve())


def _check_origin(folder: Path, url: str) -> None:
    """Raises InputError where ``folder`` is a clone of another repository than ``url``."""
    from ilab.core import git

    there = git.origin_of(folder)
    if there and not git.is_same(there, url):
        raise InputError(
            f"this is a clone of {git.redacted(there)}, not of {git.redacted(url)}",
            where=str(folder),
            hint="give another folder with --taxonomy-path DIR, or leave --repository out to use what is there",
        )


def _choose_model(answers: _Answers, given: str | None, interactive: bool) -> None:
    from ilab.config import cache_home

    if interactive and (cache_home() / "models").is_dir():
        question = "Model to serve and chat with (empty: what a build makes)"
        given = click.prompt(question, default=given or "", show_default=bool(given), err=True)
    if given:
        path = expanded(given)
        answers.put("models.default", str(path.resolve()) if path.exists() else given)


def _write(target: Path, answers: _Answers, project: bool) -> None:
    """Write the file; one that is there is kept beside it."""
    from ilab.config_edit import keep, nested, store, written

    text = written(nested(answers.settings), answers.comments, IN_PROJECT_HEAD if project else HEAD)
    if target.exists():
        click.echo(f"note: what was there is kept in {keep(target)}", err=True)
    store(target, text)


def _tell(options: Options, target: Path, answers: _Answers, profile: Profile | None, machine: Hardware) -> None:
    from ilab.profiles import why

    lines = [f"{target} is written", f"machine   {machine}"]
    reason = why(profile, machine) if profile else ""
    if profile:
        low = ": a low-fidelity approximation of the method" if profile.low_fidelity else ""
        lines.append(f"profile   {profile.name}, {profile.description}{low}")
        lines.append(f"why       {reason}")
        lines += [f"  {role:<9}{model}" for role, model in profile.models.items()]
    lines.append(f"taxonomy  {answers.settings['parameters.sdg_repo_url']}")
    lines.append("next      ilab doctor   ilab model download   ilab taxonomy diff   ilab data generate")
    chosen = {"profile": profile.name if profile else None, "why": reason}
    told = {"file": str(target), "machine": str(machine), **chosen, "settings": answers.settings}
    options.result(told, "\n".join(lines))

"""``ilab config``: the files of settings, what they say together, and where each value comes from."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ilab.cli.app import Options, show_error
from ilab.cli.config_init import init
from ilab.errors import InputError, InputErrors, SetupError

USER = click.option("--user", is_flag=True, help="The user's own file, also within a project.")
EDITORS = ("sensible-editor", "nano", "vi", "notepad")


@click.group(name="config")
def group() -> None:
    """Where every setting comes from, and how to change it.

    A project's settings stand in its ilab.yaml, those of the user in ~/.config/instructlab/config.yaml.
    """


@group.command()
@click.option("--origin", is_flag=True, help="Line by line, with where each value comes from.")
@click.option("-k", "--key", metavar="PATH", help="Only this setting or group, for example where.teacher.")
@click.option("--without-comments", "-wc", is_flag=True, help="Without what each setting is.")
@click.pass_obj
def show(options: Options, origin: bool, key: str | None, without_comments: bool) -> None:
    """The merged configuration: profile, the user's file, the project's, --set.

    For example: ilab config show --origin --key where.train
    """
    from ilab.config import flatten

    loaded = options.load()
    values = _only(flatten(loaded.config), key)
    if options.as_json:
        rows = {path: {"value": value, "origin": loaded.origins.get(path, "default")} for path, value in values.items()}
        options.result(rows if origin else values)
        return
    if origin:
        lines = [f"{path}: {value}    # {loaded.origins.get(path, 'default')}" for path, value in values.items()]
        options.result(None, "\n".join(lines if key else [*lines, f"# store: {loaded.store}"]))
        return
    from ilab.config_edit import written

    tree = _part(loaded.config.model_dump(mode="json"), key)
    options.result(None, written(tree, {} if without_comments else _descriptions()).rstrip())


def _part(tree: dict[str, Any], key: str | None) -> dict[str, Any]:
    """The settings at or below ``key``, in their groups."""
    name, _, rest = (key or "").partition(".")
    if not name:
        return tree
    return {name: _part(tree[name], rest) if rest else tree[name]}


def _only(values: dict[str, Any], key: str | None) -> dict[str, Any]:
    """The settings at or below ``key``. Raises InputError for one that is not there."""
    if not key:
        return values
    found = {path: value for path, value in values.items() if path == key or path.startswith(f"{key}.")}
    if not found:
        raise _unknown(key, values)
    return found


def _unknown(key: str, known: Mapping[str, Any]) -> InputError:
    import difflib

    from ilab.config import known_paths

    names = sorted({*known, *known_paths()})
    close = difflib.get_close_matches(key, names, n=1)
    if key in names:
        return InputError(f"{key} is not set", hint=f"set it: ilab config set {key} VALUE")
    hint = f"did you mean {close[0]!r}?" if close else "to see them all: ilab config show"
    return InputError(f"there is no setting {key!r}", hint=hint)


def _descriptions() -> dict[str, str]:
    """What every setting and parameter is, by dotted path."""
    from ilab.config import descriptions
    from ilab.parameters import TABLE

    return {**descriptions(), **{f"parameters.{parameter.name}": parameter.help for parameter in TABLE}}


@group.command(name="set")
@click.argument("path")
@click.argument("value")
@USER
@click.pass_obj
def set_(options: Options, path: str, value: str, user: bool) -> None:
    """Write a setting into the project's ilab.yaml, or outside of a project into the user's file.

    Comments and order stay. VALUE is YAML: 2, true, [a, b], text. For example: ilab config set where.threads 2
    """
    import yaml

    from ilab.config_edit import change

    try:
        meant = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"{value!r} is no YAML", hint="put text with special signs in quotes: '\"text\"'") from error
    file = _file(options, user)
    try:
        change(file, {path: meant})
    except InputErrors as error:
        first = error.errors[0]  # its line is one of a file that was not written
        raise InputError(first.message, where=str(file), hint=first.hint or "nothing was changed") from error
    options.result({"file": str(file), path: meant}, f"{file}: {path} = {value}")


def _file(options: Options, user: bool) -> Path:
    from ilab.config import find_project, user_file

    project = None if user else find_project(options.directory)
    return project or options.user_file() or user_file()


@group.command()
@USER
@click.pass_obj
def edit(options: Options, user: bool) -> None:
    """Open the file in $EDITOR and check it before it counts."""
    from ilab.config_edit import check, store

    file = _file(options, user)
    begun = "# Settings of ilab: see `ilab config show`\n"
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else begun
    with tempfile.TemporaryDirectory(prefix="ilab-edit-") as folder:
        copy = Path(folder) / file.name
        copy.write_text(text, encoding="utf-8")
        while True:
            _run_editor(copy)
            new = copy.read_text(encoding="utf-8", errors="replace")
            if new == text:
                click.echo("nothing was changed", err=True)
                return
            try:
                check(new, file)
            except InputError as error:
                show_error(error)
                if click.confirm("Go back to the editor?", default=True, err=True):
                    continue
                raise InputError("the file is as it was", where=str(file)) from error
            store(file, new)
            options.result({"file": str(file)}, f"{file} is changed")
            return


def _run_editor(path: Path) -> None:
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    command = shlex.split(named) if named else [next((name for name in EDITORS if shutil.which(name)), "")]
    program = shutil.which(command[0]) if command and command[0] else None
    if program is None:
        raise SetupError(f"there is no editor {named!r}" if named else "no editor is named", hint="export EDITOR=nano")
    if not named and not sys.stdin.isatty():  # an editor for terminals would wait for ever
        raise InputError("there is no terminal to edit in", hint="type: ilab config set PATH VALUE")
    code = subprocess.run([program, *command[1:], str(path)], check=False).returncode
    if code:
        raise InputError(f"{command[0]} ended with exit code {code}", hint="nothing was changed")


@group.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def validate(options: Options, file: Path | None) -> None:
    """Name every mistake in FILE: settings, a profile, or InstructLab's. Without FILE: in all that count here."""
    from ilab.config import find_project, user_file

    own = options.user_file() or user_file()
    files = [options.directory / file] if file else [path for path in (own, find_project(options.directory)) if path]
    there = [path for path in files if file or path.is_file()]
    told = [{"file": str(path), "form": _validated(path)} for path in there]
    if not file:
        options.load()  # together, too
    lines = [f"{entry['file']}: {entry['form']}, no mistakes" for entry in told]
    options.result(told, "\n".join(lines) or "there is no file yet: all settings have their defaults")


def _validated(path: Path) -> str:
    """What a file is. Raises InputErrors for its mistakes."""
    from ilab.config import check_source
    from ilab.config_source import read_source
    from ilab.migrate import is_instructlab, translate
    from ilab.profiles import read_profile

    source = read_source(path)
    if is_instructlab(source.tree):
        translated = translate(source)
        wrong = check_source(translated.as_source(path))
        if wrong:
            raise InputErrors(wrong)
        return f"of InstructLab, version {translated.version}; {len(translated.left)} settings have no meaning here"
    if "fits" in source.tree or (isinstance(source.tree.get("models"), dict) and "student" in source.tree["models"]):
        wrong = check_source(type(source)(path, {"where": read_profile(path).where}, source.lines))
        if wrong:
            raise InputErrors(wrong)
        return "a profile"
    wrong = check_source(source)
    if wrong:
        raise InputErrors(wrong)
    return "settings"


@group.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Write it there; FILE itself is kept as FILE.old.")
@click.pass_obj
def migrate(options: Options, file: Path | None, output: Path | None) -> None:
    """Write InstructLab's configuration FILE (version 0.x or 1.0.0) anew, and list what has no meaning here.

    Without FILE it is the user's own. For example: ilab config migrate config.yaml --output ilab.yaml
    """
    from ilab.config import user_file
    from ilab.config_edit import keep, store, written
    from ilab.config_source import read_source
    from ilab.migrate import is_instructlab, translate

    path = options.directory / file if file else options.user_file() or user_file()
    target = options.directory / output.expanduser() if output else None
    anew = target is not None and target.exists() and target.samefile(path)
    if target is not None and target.exists() and not anew:
        raise InputError("this file is there already", where=str(target), hint="give another name, or remove it")
    source = read_source(path)
    if not is_instructlab(source.tree):
        raise InputError("this is no file of InstructLab's", where=str(path), hint=f"ilab config validate {path}")
    found = translate(source)
    text = written(found.tree, _descriptions(), f"Written anew from {path.name}, version {found.version}.")
    left = [{"setting": one.path, "value": one.value, "where": one.place, "instead": one.instead} for one in found.left]
    if target:
        if anew:
            keep(path)
        store(target, text)
    for one in found.left:
        click.echo(f"{one.place}: {one.path}: {one.value!r} has no meaning here; {one.instead}", err=True)
    if found.defaults:
        click.echo(f"{found.defaults} more only say what InstructLab did anyway", err=True)
    target_text = f"{target} is written" if target else text.rstrip()
    options.result({"settings": found.tree, "left": left, "defaults": found.defaults}, target_text)


@group.command()
@click.pass_obj
def profiles(options: Options) -> None:
    """The profiles: which machines they are for, and which open models they recommend."""
    from ilab.hardware import detect
    from ilab.profiles import checked, choose, shipped, why

    here = detect()
    chosen = choose(here).name
    lines = [f"this machine: {here}; its profile: {chosen}", f"why: {why(choose(here), here)}"]
    for profile in shipped().values():
        low = " (low fidelity)" if profile.low_fidelity else ""
        lines.append(f"\n{profile.name}: {profile.description}{low}")
        lines += [f"  {role:<9}{model}" for role, model in profile.models.items()]
    lines.append(f"\nlicences as the models' pages said on {checked()}; look again before you build on one")
    lines.append("about: no page with the size was found, so it is reckoned from the number of weights")
    told = {name: profile.model_dump(mode="json") for name, profile in shipped().items()}
    options.result({"here": chosen, "checked": str(checked()), "profiles": told}, "\n".join(lines))


group.add_command(init)

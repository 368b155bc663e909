"""``ilab package``: what a build hands on. Built, pushed, looked at, and proved to be the model that was evaluated."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.building import Asked, building
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.packaging.publish import Reach
    from ilab.packaging.verify import Verdict
    from ilab.transfer.address import Address

S3 = "s3://"
PLACE = click.argument("place", required=False, metavar="[PLACE]")
LOGINS = click.option("--logins", metavar="FILE", help="Docker config file with the login.")


@click.group(name="package")
def group() -> None:
    """The package of a build: an OCI image with the model, its card, lineage and probe."""


@group.command()
@click.argument("model_dir", required=False, metavar="[MODEL_DIR]")
@click.option("--output", metavar="DIR", help="Folder for the package of MODEL_DIR.")
@click.option("--name", metavar="NAME", help="Its name.  [default: the folder's]")
@click.option("--model-version", metavar="X.Y.Z", default="0.1.0", show_default=True, help="Its version.")
@click.option("--format", "form", type=click.Choice(["modelcar", "modelpack"]), default="modelcar", show_default=True)
@click.option("--base-image", metavar="PLACE", default="", help="Image that a modelcar stands on.")
@click.option("--license", "license_", metavar="SPDX", default="", help="The licence, where no model card says it.")
@building
@click.pass_context
def build(context: click.Context, /, model_dir: str | None, asked: Asked, **given: Any) -> None:
    """Build the package of this project, as far as that is still to do; or that of a model in MODEL_DIR.

    Of the project's package everything is set by parameters (-p output_format=modelpack …). A folder is packaged as it
    is, with a probe, so that it can be verified later; nothing is known of how it was made or measured.
    """
    options: Options = context.obj
    if model_dir is None:
        if given["output"]:
            hint = "build it, then: ilab package push DIR"
            raise InputError("--output is for the package of MODEL_DIR", hint=hint)
        from ilab.cli.pipeline import run

        which = {f"asked_{name}": value for name, value in vars(asked).items()}
        context.invoke(run, **which, until="package", only=None, force=())
        return
    if not given["output"]:
        raise InputError("a folder for the package is missing", hint="add --output DIR")
    result = _bare(options, options.directory / model_dir, given)
    options.result(result, f"{result['path']}: {result['digest']}")


def _bare(options: Options, model: Path, given: dict[str, Any]) -> dict[str, Any]:
    from ilab.cli.live import view
    from ilab.cli.threads import passive_threads
    from ilab.core.events import Bus
    from ilab.packaging.bare import Label, package_folder
    from ilab.packaging.base_image import bring_image
    from ilab.packaging.image import How

    loaded = options.load()
    passive_threads()
    out = options.directory / given["output"]
    if out.exists() and any(out.iterdir()):
        raise InputError("this folder is not empty", where=str(out), hint="give a new one")
    label = Label(given["name"] or model.resolve().name, given["model_version"], given["license_"])
    with view() as shown, tempfile.TemporaryDirectory() as work:
        emit = Bus([shown]).for_step("package")
        emit.started()
        base = bring_image(given["base_image"], options.directory, _reach(options), Path(work), emit)
        digest = package_folder(model, out, label, How(given["form"], base), loaded.config.where.threads)
        emit.finished(state="run", counts={})
    return {"path": str(out), "digest": digest, "name": label.name, "version": label.version}


@group.command()
@click.argument("destination", required=False, metavar="[DESTINATION]")
@click.option("--package", "package_dir", metavar="DIR", help="The package.  [default: the last build's]")
@click.option("--sign-key", metavar="REF", help="Sign with this key, env:NAME or file:PATH.")
@LOGINS
@click.pass_obj
def push(
    options: Options, destination: str | None, package_dir: str | None, sign_key: str | None, logins: str | None
) -> None:
    """Push a package to DESTINATION, sign it if there is a key, and read it back.

    \b
    DESTINATION is oci://HOST/PATH:TAG, HOST/PATH:TAG or a folder; else what output_oci_model_uri says.
      ilab package push quay.io/team/model:1.0 --sign-key file:key.pem
    """
    from ilab.cli.live import view
    from ilab.core.events import Bus
    from ilab.outcome import packages_where
    from ilab.packaging.publish import place_of, push_package

    reach = _reach(options, sign_key, logins)
    layout = _layout(options, package_dir)
    text = destination or packages_where(options.load()).package.push
    if not text:
        raise InputError("no destination is given", hint="ilab package push HOST/PATH:TAG")
    to = place_of(text, options.directory)
    with view() as shown, tempfile.TemporaryDirectory() as work:
        emit = Bus([shown]).for_step("push")
        emit.started()
        done = push_package(layout, to, reach, Path(work) / "sign", emit)
        emit.finished(state="run", counts={"bytes": done.size})
    told = {"address": done.address, "digest": done.digest, "bytes": done.size, "signed": done.signed}
    signed = ", signed" if done.signed else ""
    options.result(told, f"{done.address} ({done.digest[:19]}{signed}) was read back and is whole")


@group.command()
@PLACE
@click.option("--key", metavar="REF", default="", help="Public key of whoever signed it, env:NAME or file:PATH.")
@click.option("--quick", is_flag=True, help="Digests alone: every byte is read, nothing is kept, no model is asked.")
@LOGINS
@click.pass_obj
def verify(options: Options, place: str | None, key: str, quick: bool, logins: str | None) -> None:
    """Prove that the package at PLACE is the model that was evaluated: digests, files, template, tokens, logits.

    PLACE is oci://HOST/PATH:TAG, HOST/PATH:TAG, a folder, or s3://… as the registry has it; else the last build's. Exit
    code 5 where anything differs.
    """
    from ilab.cli.live import view
    from ilab.cli.threads import passive_threads
    from ilab.core.events import Bus
    from ilab.packaging.verify import verify as verify_all
    from ilab.packaging.verify import verify_quickly

    reach = _reach(options, None, logins)
    where = _place(options, place)
    passive_threads()
    with view() as shown, tempfile.TemporaryDirectory() as work:
        emit = Bus([shown]).for_step("verify")
        emit.started()
        if quick:
            found = verify_quickly(where, reach, emit)
        else:
            found = verify_all(where, Path(work), reach, key, options.load().config.where.threads, emit)
        emit.finished(state="run", counts={"wrong": len(found.wrong)})
    told = {"digest": found.digest, "bytes": found.size, "checks": found.checks, "wrong": found.wrong}
    recalled = _recalled(options, found)
    options.result({**told, "recalled": recalled}, _verdict(found, recalled))
    found.require(str(where))


def _verdict(found: Verdict, recalled: str) -> str:
    lines = [f"{found.digest or 'no digest'}"]
    lines += [f"  {name:<10}{found.wrong.get(name, text)}" for name, text in found.checks.items()]
    lines += [f"  {name:<10}{text}" for name, text in found.wrong.items() if name not in found.checks]
    lines += [f"  warning: it was recalled: {recalled}"] * bool(recalled)
    return "\n".join(lines)


def _recalled(options: Options, found: Verdict) -> str:
    from ilab.outcome import recalled

    return recalled(options.load(), found.digest)


@group.command()
@PLACE
@LOGINS
@click.pass_obj
def show(options: Options, place: str | None, logins: str | None) -> None:
    """What the package at PLACE holds: its form, layers, digests and annotations. Fetches no weights."""
    from ilab.cli.findings import printable
    from ilab.packaging.publish import describe

    told = describe(_place(options, place), _reach(options, None, logins))
    lines = [f"{told['digest']}  {told['form']}, {told['bytes'] / 1e6:,.1f} MB, {_signed(told['signatures'])}"]
    lines += [f"  {name}: {text}" for name, text in told["annotations"].items()]
    lines += [
        f"  {one['bytes']:>14,}  {one['digest'][7:19]}  {one['file'] or '(base image)'}" for one in told["layers"]
    ]

    options.result(told, "\n".join(printable(line) for line in lines))


def _signed(count: int) -> str:
    return "not signed" if not count else "signed" if count == 1 else f"{count} signatures"


def _place(options: Options, place: str | None) -> Address | Path:
    from ilab.packaging.publish import place_of

    if not place or place.startswith(S3):
        return _layout(options, place)
    return place_of(place, options.directory)


def _layout(options: Options, given: str | None) -> Path:
    """The package that was given by its folder, or by its address in a store in a bucket (as the registry has it), else
    the last build's."""
    from ilab.transfer.stores import artifact_at, latest_of

    if given and given.startswith(S3):
        package = artifact_at(options.load(), given)
        if not package.is_dir():
            raise InputError("there is no such package", where=given, hint="see: ilab registry show NAME")
        return package
    if given:
        return options.directory / given
    latest: Path = latest_of(options.load(), "package")
    if not latest.is_dir():
        hint = "build one: ilab package build; or give a folder or an address"
        raise InputError("this project has no package yet", where=str(latest), hint=hint)
    return latest.resolve()


def _reach(options: Options, sign_key: str | None = None, logins: str | None = None) -> Reach:
    from dataclasses import replace

    from ilab.outcome import packages_where
    from ilab.packaging.publish import reach_of

    reach = reach_of(packages_where(options.load()))
    if logins is not None:
        file = options.directory / logins
        if not file.exists():
            raise InputError("there is no such file", where=str(file), hint="correct --logins")
        reach = replace(reach, logins=file)
    return replace(reach, sign_key=sign_key) if sign_key else reach

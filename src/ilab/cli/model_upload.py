"""``ilab model upload``: a model to a hub, a registry or a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.model_download import HF_TOKEN, S3_ENDPOINT, size_text
from ilab.cli.process import detachable, go_to_background, stay_for_dry_run
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import WebWhere
    from ilab.core.events import Emit
    from ilab.transfer.address import Address
    from ilab.transfer.push import Outgoing, Pushed

__all__ = ["upload"]


@click.command()
@click.option("--model", "-m", metavar="MODEL", help="Path or name.  [default: what the last build chose]")
@click.option("--dest-type", type=click.Choice(["hf", "oci", "s3"]), help="Where to.  [default: as DESTINATION says]")
@click.option("--destination", "-d", required=True, metavar="PLACE", help="OWNER/NAME, oci://…, s3://BUCKET/PREFIX")
@click.option("--release", "-rl", metavar="REV", default="", help="Branch or tag.  [default: main, or latest]")
@click.option(
    "--licence", "--license", metavar="SPDX", default="", help="Named in a registry, where the model does not."
)
@HF_TOKEN
@S3_ENDPOINT
@click.option("--dry-run", is_flag=True, help="Show what would be sent.")
@detachable
@click.pass_obj
def upload(options: Options, /, model: str | None, dest_type: str | None, **given: Any) -> None:
    """Send a model to the hub, a registry or a bucket: weights, configuration, tokenizer and papers, nothing else."""
    from ilab.cli.live import view
    from ilab.core.events import Bus
    from ilab.outcome import model_to_use
    from ilab.transfer.push import outgoing

    stay_for_dry_run(given["dry_run"])
    loaded = options.load()
    address = _address(dest_type, given["destination"], given["release"])
    path, name = model_to_use(loaded, model, options.directory)
    sent = outgoing(path)
    if address.kind == "s3" and not address.path:
        from dataclasses import replace

        address = replace(address, path=name)
    result = {"model": str(path), "files": {k: v.stat().st_size for k, v in sent.files.items()}, "bytes": sent.size}
    line = f"{name}: {size_text(sent.size)} in {len(sent.files)} files to {address}"
    if given["dry_run"]:
        options.result({**result, "destination": str(address)}, line)
        return
    go_to_background(options)
    click.echo(line, err=True)
    with view() as shown:
        emit = Bus([shown]).for_step("upload")
        emit.started()
        pushed = _push(sent, address, loaded.config.where.web, given, emit)
        emit.finished(state="run", counts={"bytes": sent.size})
    digest = f" ({pushed.digest[:19]})" if pushed.digest else ""
    options.result(
        {**result, "destination": pushed.address, "digest": pushed.digest}, f"it is at {pushed.address}{digest}"
    )


def _address(dest_type: str | None, destination: str, release: str) -> Address:
    """Where to. ``--dest-type`` reads a place without a scheme: ``s3`` a bucket's name, ``oci`` a host and path."""
    from ilab.transfer.address import parse

    scheme = destination.partition("://")[0] if "://" in destination else ""
    kind = {"docker": "oci"}.get(scheme, scheme)
    if dest_type and kind and kind != dest_type:
        hint = f"leave --dest-type out, or give it as {kind}"
        raise InputError(f"{destination} is no place of type {dest_type}", where="--destination", hint=hint)
    address = parse(destination if scheme else f"{dest_type or 'hf'}://{destination}", release)
    if address.kind == "file":
        raise InputError(
            "a model is copied on this machine by cp -r", where="--destination", hint="give a server's place"
        )
    return address


def _push(sent: Outgoing, address: Address, web: WebWhere, given: dict[str, Any], emit: Emit) -> Pushed:
    from ilab.transfer import push

    if address.kind == "s3":
        from ilab.transfer.s3 import Bucket

        return push.push_bucket(sent, Bucket(address, given["s3_endpoint"], web), address, emit)
    if address.kind == "hf":
        from ilab.transfer.huggingface import hub_token

        return push.push_hub(sent, address, hub_token(given["hf_token"]), emit)
    from ilab.transfer.registry import Registry
    from ilab.transfer.web import Http

    http = Http(web)
    try:
        return push.push_registry(sent, Registry(http, address), given["licence"], emit)
    finally:
        http.close()

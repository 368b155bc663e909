"""``ilab system``: what this machine has."""

from __future__ import annotations

import click

from ilab.cli.app import Options, show_error


@click.group(name="system")
def group() -> None:
    """What this machine has, for a report of a problem."""


@group.command()
@click.pass_obj
def info(options: Options) -> None:
    """Machine, GPUs, versions and folders; no secrets.

    For example: ilab system info --json
    """
    from ilab.machine import system_info

    loaded, wrong = options.load_or_defaults()
    if wrong:
        show_error(wrong)
    told = system_info(loaded)
    lines: list[str] = []
    for category, values in told.items():
        lines.append(f"{category}:")
        lines += [f"  {name}: {'-' if value is None else value}" for name, value in values.items()] or ["  none"]
    options.result(told, "\n".join(lines))


@group.command()
@click.pass_obj
def df(options: Options) -> None:
    """What of ours takes room on the disk and in the store's bucket, and what to type to free it.

    For example: ilab system df --json
    """
    from dataclasses import asdict

    from ilab.cli.model_download import size_text
    from ilab.disk_use import bucket_use, disk_use

    loaded, wrong = options.load_or_defaults()
    if wrong:
        show_error(wrong)
    used = list(disk_use(loaded))
    lines = []
    for one in used:
        if one.bytes:
            holds = f", {one.holds}" if one.holds else ""
            lines.append(f"{size_text(one.bytes):>10}  {one.name}{holds}: {one.path}\n{'':12}{one.prune}")
    total = sum(one.bytes for one in used)
    lines.append(f"{size_text(total):>10}  in all")
    told = {"uses": [asdict(one) for one in used], "bytes": total, "bucket": None}
    if bucket := bucket_use(loaded):
        told["bucket"] = {**asdict(bucket), "bytes": bucket.bytes, "results": bucket.results}
        head = f"not known: {bucket.error}" if bucket.error else f"{size_text(bucket.bytes)}, {bucket.results} results"
        lines.append(f"In the bucket {bucket.address}: {head}")
        lines += [
            f"{size_text(one.bytes):>10}  {name}{f', {one.results} results' if one.results else ''}"
            for name, one in bucket.types.items()
        ]
        lines.append(f"{'':12}ilab pipeline gc   (removes there what no project needs any more)")
    options.result(told, "\n".join(lines))

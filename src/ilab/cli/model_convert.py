"""``ilab model convert``: a model as one GGUF file, for llama.cpp and what is built on it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ilab.cli.app import Options
from ilab.cli.old_options import OldOptions
from ilab.cli.process import detachable, go_to_background
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.packaging.gguf.parity import Check, Parity

OLD = OldOptions(
    taken={
        "--skip-de-quantize/-sd": "an adapter is merged into the weights as they lie on the disk",
        "--skip-quantize/-sq": "only --type makes the weights smaller, and nothing that is there is removed",
    },
    refused={},
    flags=frozenset({"--skip-de-quantize/-sd", "--skip-quantize/-sq"}),
)
NO_ADAPTER = ("none", "auto")  # what InstructLab's scripts say where there is none


@click.command()
@click.argument("model_dir", required=False, metavar="[MODEL_DIR]")
@click.option("--model-dir", "--model-path", "named_dir", metavar="DIR", help="The same as the argument.")
@click.option("--adapter-file", metavar="DIR|FILE", default="", help="Merge this PEFT adapter into the model first.")
@click.option("--output", metavar="FILE", help="The file to write.  [default: NAME-TYPE.gguf]")
@click.option(
    "-t", "--type", "type_", default="f16", show_default=True, help="f32, f16, bf16, q8_0, q5_0, q4_0, q4_k_m …"
)
@click.option("--model-name", metavar="NAME", default="", help="The name in the file, and of it.")
@click.option("--license", "license_", metavar="SPDX", default="", help="The licence, where no model card says it.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@detachable
@OLD
@click.pass_obj
def convert(options: Options, /, model_dir: str | None, named_dir: str | None, type_: str, **given: str | None) -> None:
    """Write a model as a GGUF file, and check that it says what the model says.

    MODEL_DIR is a Hugging Face directory, or what the last build chose. f32, f16, bf16, q8_0, q5_0 and q4_0 are written
    here; other types by llama.cpp's quantiser, where it is installed. The file gets its name after the checks; what
    they measured stands beside it in NAME.parity.json. No file that is read is changed or removed.
    """
    from ilab.cli.live import view
    from ilab.cli.threads import passive_threads
    from ilab.core.events import Bus
    from ilab.outcome import model_to_use

    if model_dir and named_dir:
        raise InputError("the folder is given twice", hint="give MODEL_DIR or --model-dir")
    loaded = options.load()
    passive_threads()
    named = model_dir or named_dir
    folder, name = model_to_use(loaded, named, options.directory)
    go_to_background(options)
    from ilab.packaging.gguf.export import Label, export_gguf
    from ilab.packaging.gguf.export import Options as How
    from ilab.training.fuse import fused

    adapter = "" if given["adapter_file"] in NO_ADAPTER else given["adapter_file"]
    label = Label(given["model_name"] or ("" if named and not adapter else name), given["license_"] or "")
    output = options.directory / (given["output"] or f"{given['model_name'] or name}-{type_.lower()}.gguf")
    with view() as shown, ExitStack() as stack:
        emit = Bus([shown]).for_step("convert")
        emit.started()
        if adapter:
            folder = stack.enter_context(fused(folder, options.directory / Path(adapter).expanduser(), output.parent))
        how = How(force=bool(given["force"]), threads=loaded.config.where.threads, emit=emit)
        parity = export_gguf(folder, output, type_, label, how)
        emit.finished(state="run", counts={"bytes": parity.bytes})
    options.result({"path": str(output), **parity.model_dump()}, _text(output, parity))


def _text(path: Path, parity: Parity) -> str:
    """The file, then a line for each check, then what a person should know."""
    from ilab.cli.findings import printable

    stored = ", ".join(f"{count} {kind}" for kind, count in parity.stored.items())
    lines = [f"{path}: {parity.bytes / 1e6:,.1f} MB, {parity.type} (tensors: {stored})"]
    lines += [_check(check) for check in parity.checks]
    lines += [f"  note: {note}" for note in parity.notes]
    return "\n".join(printable(line) for line in lines)


def _check(check: Check) -> str:
    if check.skipped:
        return f"  {check.name:<8}not checked: {check.skipped}"
    shown = check.measured
    if check.name == "tokens":
        found = f"{shown['texts']:.0f} texts, {shown['different']:.0f} with other tokens"
    else:
        found = f"off by {shown['error']:.2g}, at most {check.limits['error']:.2g} is allowed"
        if check.name == "logits":
            found += f"; divergence {shown['divergence']:.2g} nats, same best token {shown['same_best_token']:.0%}"
    return f"  {check.name:<8}{found} ({check.by})"


__all__ = ["convert"]

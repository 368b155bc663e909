"""A GGUF file in a package, and the Modelfile by which Ollama takes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from ilab.core.files import take_over
from ilab.core.step import Site
from ilab.models.chat_template import ChatTemplate, json_object
from ilab.packaging.lineage import NAME as LINEAGE

MODELFILE = "Modelfile"


def gguf_files(
    model: Path, papers: Mapping[str, bytes | Path], type_: str, name: str, site: Site
) -> dict[str, Path | bytes]:
    """The GGUF file of this type, checked against the model, with its parity report and a Modelfile.

    The card and lineage among ``papers`` go into the file. Raises what
    :func:`ilab.packaging.gguf.export.export_gguf` does.
    """
    from ilab.packaging.gguf.export import Label, Options, export_gguf, parity_path

    folder, source = site.work / "gguf", site.work / "gguf-source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(model, source, copy_function=take_over)
    for paper in ("README.md", LINEAGE):
        (source / paper).unlink(missing_ok=True)
        content = papers[paper]
        (source / paper).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.rpartition('/')[2]}-{type_.lower()}.gguf"
    how = Options(force=True, threads=site.where.threads, emit=site.emit)
    export_gguf(source, file, type_, Label(name=name), how)
    shutil.rmtree(source)
    return {file.name: file, parity_path(file).name: parity_path(file), MODELFILE: modelfile(model, file.name).encode()}


def modelfile(model: Path, gguf: str) -> str:
    """What `ollama create` reads: the file, the length of the context, and what ends an answer. The chat template is in
    the GGUF file, where Ollama finds it."""
    context = json_object(model / "config.json").get("max_position_embeddings")
    lines = [f"FROM ./{gguf}"]
    if isinstance(context, int):
        lines.append(f"PARAMETER num_ctx {context}")
    stop = ChatTemplate.load(model).named.get("eos_token")
    if stop:
        lines.append(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"

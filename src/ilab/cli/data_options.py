"""What the options of ``ilab data generate`` become: settings, pipeline parameters, and where files are written.

Options of InstructLab's that have no effect here are two tables: taken with a note, or refused with what to use
instead. What only old scripts pass and what changes no result is taken.

Where the files go, if nobody says otherwise: ``ilab generate`` outside of projects writes the old names to
``generated/`` here, as it always did; ``ilab data generate`` outside of projects a dated folder to ``where.datasets``
(``~/.local/share/instructlab/datasets``); a project keeps its samples in its store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ilab.cli.app import Options
from ilab.cli.old_options import OldOptions
from ilab.errors import InputError, SetupError

if TYPE_CHECKING:
    from ilab.config import Loaded

NO_KEYS = ("no_api_key", "EMPTY")  # what old scripts give a server that wants no key
OLD_FOLDER = "generated"  # of ``lab generate``
DATASETS = "datasets"  # in the data home
TAKEN: dict[str, str] = {
    "--num-cpus": "requests are made by one process; sdg_batch_size and sdg_num_workers say how many are under way",
    "--yaml-rules": "the rules for qna.yaml files are fixed (ilab taxonomy check)",
}
REFUSED: dict[str, str] = {
    "--rouge-threshold": "give -p sdg_near_duplicates=0.8; what was left out: ilab data show --verdict rejected",
}
upstream_options = OldOptions(TAKEN, REFUSED)


@dataclass(frozen=True)
class Wanted:
    """What becomes of the samples: at most ``number`` of them, written to ``output``."""

    number: int | None
    output: Path | None
    legacy: bool
    system: str | None
    quiet: bool


def check_together(given: Mapping[str, Any]) -> None:
    """Raises InputError for options that do not go together."""
    if given["max_calls"] and not given["preview"]:
        raise InputError("--max-calls limits a preview", hint="add --preview N")
    if given["preview"] and given["num_instructions"]:
        raise InputError("--preview and --num-instructions exclude each other")


def is_flat() -> bool:
    """Whether the command was spelled ``ilab generate``."""
    parent = click.get_current_context().parent
    return parent is not None and parent.parent is None


def wanted_of(options: Options, loaded: Loaded, given: Mapping[str, Any], flat: bool) -> Wanted:
    """What shall become of the samples. Raises for a folder that cannot be written into."""
    from ilab.profiles import model_by_id

    output, legacy = _output(options, loaded, given, flat)
    for name in ("legacy", "system_prompt"):
        if given[name] and output is None:
            raise InputError(f"--{name.replace('_', '-')} says how files are written", hint="add --output-dir DIR")
    system = given["system_prompt"]
    if system is None and given["student_model_id"]:
        system = model_by_id(loaded, given["student_model_id"]).system_prompt or None
    return Wanted(given["num_instructions"], output and _writable(output), legacy, system, given["quiet"])


def _output(options: Options, loaded: Loaded, given: Mapping[str, Any], flat: bool) -> tuple[Path | None, bool]:
    from ilab.config import PROJECT_FILE

    configured = loaded.config.where.datasets
    if given["output_dir"]:
        return options.directory / Path(given["output_dir"]).expanduser(), given["legacy"]
    if given["preview"]:  # to look at, not to keep
        return None, False
    in_project = (loaded.base / PROJECT_FILE).is_file()
    if flat and not in_project:
        return loaded.path(configured) if configured else options.directory / OLD_FOLDER, True
    return datasets_of(loaded), given["legacy"]


def datasets_of(loaded: Loaded) -> Path | None:
    """The folder that datasets are written to: ``where.datasets``, else, outside of projects, in the data home."""
    from ilab.config import PROJECT_FILE, data_home

    if loaded.config.where.datasets:
        return loaded.path(loaded.config.where.datasets)
    return None if (loaded.base / PROJECT_FILE).is_file() else data_home() / DATASETS


def _writable(path: Path) -> Path:
    """``path``, where a folder can be made or written into: told before anything is spent."""
    import os

    nearest = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not nearest.is_dir():
        raise InputError("this is a file; a folder is written into", where=str(nearest))
    if not os.access(nearest, os.W_OK):
        raise SetupError("this folder cannot be written", where=str(nearest), hint="mend its permissions")
    return path


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are settings, for :meth:`Options.load`."""
    key = given["api_key"]
    return {
        "where__teacher__url": given["endpoint_url"],
        "where__teacher__api_key": None if key in NO_KEYS else key,
        "where__teacher__insecure": given["tls_insecure"],
        "where__teacher__client_cert": given["tls_client_cert"] or None,
        "where__teacher__client_key": given["tls_client_key"] or None,
        "where__teacher__client_key_password": given["tls_client_passwd"] or None,
        "where__serve__gpus": given["gpus"],
    }


def parameters_of(loaded: Loaded, given: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline parameters that the options are."""
    from ilab.cli.building import split_parameters
    from ilab.profiles import model_by_id

    if given["batch_size"] == 0:
        click.echo("note: --batch-size 0 is not needed: rows move on their own, and every answer is kept", err=True)
    named = model_by_id(loaded, given["teacher_model_id"]) if given["teacher_model_id"] else None
    values = {
        "sdg_repo_url": given["taxonomy_path"],
        "taxonomy_base": given["taxonomy_base"],
        "sdg_pipeline": given["flow"],
        "sdg_teacher_model": given["model"] or (named and named.path),
        "sdg_teacher_family": given["model_family"] or (named and _family(named.family)),
        "sdg_scale_factor": given["sdg_scale_factor"] or (1 if given["preview"] else None),
        "sdg_batch_size": given["batch_size"] or None,
        "sdg_max_tokens": given["max_num_tokens"],
        "chunk_word_count": given["chunk_word_count"],
        "server_ctx_size": given["server_ctx_size"],
    }
    return split_parameters(given["parameters"]) | {name: value for name, value in values.items() if value is not None}


def _family(name: str) -> str | None:
    """The prompt format that a family's name contains, as ``meta-llama`` does; None: its server knows it."""
    from ilab.parameters.data import FAMILIES

    known = [family for family in FAMILIES if family in name.lower()]
    return max(known, key=len) if known else None

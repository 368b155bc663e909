"""Values that a shell can complete: which option or argument of which command takes what.

Each offer is asked at a press of TAB, so it imports as little as it can, and where a file is wrong it offers nothing:
the command itself is going to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.types import StringParamType

from ilab.errors import IlabError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Offer = Callable[[Path], Mapping[str, str]]  # the folder that the command works in -> value and what it is


class Offered(StringParamType):
    """Text for which ``offer`` knows values."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The values that begin as the text does, else files where a path will do."""
        from click.shell_completion import CompletionItem

        folder = Path(str(ctx.find_root().params.get("directory") or "."))
        try:
            values = self.offer(folder)
        except (IlabError, OSError):
            values = {}
        found = [
            CompletionItem(value, help=text or None) for value, text in values.items() if value.startswith(incomplete)
        ]
        return found or [CompletionItem(incomplete, type="file")] * (self.offer in PATHS)


def models(folder: Path) -> Mapping[str, str]:
    """The models of the models folder, by name."""
    from ilab.transfer.shelf import Shelf, models_home

    return {model.name: "" for model in Shelf(models_home()).models()}


def leaves(folder: Path) -> Mapping[str, str]:
    """The leaves of the project's taxonomy, or of that in ``folder``."""
    from ilab.cli.app import Options
    from ilab.cli.leaves import taxonomy_path
    from ilab.taxonomy.layout import find_layout

    layout = find_layout(taxonomy_path(Options(folder, (), None, False, False), None))
    return {layout.name(file.parent): "" for file in layout.files}


def processes(folder: Path) -> Mapping[str, str]:
    """What runs in the background, or did."""
    from ilab.processes import Processes

    return {one.id: f"{one.state}: ilab {' '.join(one.command)}" for one in reversed(Processes().all())}


def settings(folder: Path) -> Mapping[str, str]:
    """Every setting, by its path."""
    from ilab.config import descriptions, known_paths

    texts = descriptions()
    return {path: texts.get(path, "") for path in known_paths()}


def settings_to_set(folder: Path) -> Mapping[str, str]:
    """As ``--set`` takes them."""
    return {f"{path}=": text for path, text in settings(folder).items()}


def parameters(folder: Path) -> Mapping[str, str]:
    """The pipeline parameters, as ``-p`` takes them."""
    from ilab.parameters import TABLE

    return {f"{parameter.name}=": parameter.help for parameter in TABLE}


def flows(folder: Path) -> Mapping[str, str]:
    """The shipped flows."""
    return dict.fromkeys(_shipped("sdg/flows"), "")


def pipelines(folder: Path) -> Mapping[str, str]:
    """The shipped pipelines."""
    return dict.fromkeys(_shipped("pipelines"), "")


def profiles(folder: Path) -> Mapping[str, str]:
    """The shipped profiles."""
    return {name: "" for name in _shipped("profiles") if name != "models"}


def _shipped(part: str) -> Iterable[str]:
    """Names of what lies in a folder of the package: folders, and YAML files."""
    found = (Path(__file__).parents[1] / part).iterdir()
    return sorted(path.stem for path in found if path.suffix == ".yaml" or (path.is_dir() and path.stem.isidentifier()))


PATHS = (models, flows, pipelines, profiles)  # a path may be typed in place of these
# (command, option or argument) -> what it takes; `*` is every command that has this option.
OFFERS: dict[tuple[str, str], Offer] = {
    ("", "--set"): settings_to_set,
    ("*", "--leaf"): leaves,
    ("*", "--pipeline"): pipelines,
    ("*", "-p"): parameters,
    ("config init", "--profile"): profiles,
    ("config set", "path"): settings,
    ("config show", "--key"): settings,
    ("data generate", "--pipeline"): flows,
    ("flow copy", "name"): flows,
    ("flow run", "name"): flows,
    ("flow show", "name"): flows,
    ("model chat", "--model-path"): models,
    ("model compare", "--model"): models,
    ("model convert", "model_dir"): models,
    ("model evaluate", "--base-model"): models,
    ("model evaluate", "--model"): models,
    ("model info", "name"): models,
    ("model remove", "--model"): models,
    ("model remove", "name"): models,
    ("model serve", "--model-path"): models,
    ("model test", "--model-dir"): models,
    ("model train", "--model-path"): models,
    ("model upload", "--model"): models,
    ("process attach", "identity"): processes,
    ("process remove", "identity"): processes,
    ("process stop", "identity"): processes,
    ("taxonomy draft", "leaf"): leaves,
}

"""One file, one Config: where and how things run, and where every value came from.

``ilab.yaml`` marks a project. Its values lie over those of the user's own file, and those over a profile's:

    defaults  <  profile  <  ~/.config/instructlab/config.yaml  <  ilab.yaml  <  --set a.b=c  <  flag

Every flag is the name of a config path, so this is the only merge. An unknown key is an error that names the nearest
known one. The environment gives secrets and home folders, nothing else. *What* is built stands under ``pipeline`` and
``parameters``; everything under ``where`` may change without changing a single byte of a result. So what the user's
file says of *what* holds outside of projects alone: a project is the same build on every machine.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from ilab.config_chat import Chat
from ilab.config_layers import Layer, merge, of_command, of_file, of_profile, of_user
from ilab.config_source import Source, read_source
from ilab.config_where import (
    DocumentsWhere,
    EmbedderWhere,
    Endpoint,
    EvaluateWhere,
    KubeflowWhere,
    KubernetesWhere,
    PackageWhere,
    Rag,
    Section,
    ServeWhere,
    TrainWhere,
    WebWhere,
    Where,
)
from ilab.core.step import fingerprint
from ilab.errors import InputError
from ilab.homes import cache_home, config_home, data_home, data_homes, expanded
from ilab.parameters.parameter import Environment

if TYPE_CHECKING:
    from ilab.profiles import Profile

__all__ = [
    "PROJECT_FILE",
    "SERVED",
    "USER_FILE",
    "Chat",
    "Config",
    "DocumentsWhere",
    "EmbedderWhere",
    "Endpoint",
    "EvaluateWhere",
    "KubeflowWhere",
    "KubernetesWhere",
    "Loaded",
    "Models",
    "NamedModel",
    "PackageWhere",
    "Rag",
    "Section",
    "ServeWhere",
    "TrainWhere",
    "WebWhere",
    "Where",
    "cache_home",
    "check_source",
    "config_home",
    "data_home",
    "data_homes",
    "descriptions",
    "find_project",
    "flatten",
    "known_paths",
    "load",
    "user_file",
]

PROJECT_FILE = "ilab.yaml"
SERVED = {"teacher": "sdg_teacher_model", "verifier": "sdg_verifier_model", "judge": "eval_judge_model"}
USER_FILE = "config.yaml"  # in config_home()
S3 = "s3://"
ANY = "*"


class NamedModel(Section):
    """A model under a name of one's own. ``path`` is a folder, a GGUF file, or its name in the models folder."""

    path: str = Field(description="folder, GGUF file, or name in `ilab model list`")
    family: str = Field("", description="prompt format, where the model has no template of its own")
    system_prompt: str = Field("", description="system message that it is used with")


class Models(Section):
    """Models by role, each ``OWNER/NAME`` on the hub, a path, or an entry of ``named``. Empty: what the profile has."""

    teacher: str = Field("", description="the teacher, where no server plays it")
    judge: str = Field("", description="the judge, where no server plays it")
    embedder: str = Field("", description="what compares texts by meaning; `hashed`: by their letters, without a model")
    default: str = Field("", description="what serve, chat and compare take where the project has built none")
    named: dict[str, NamedModel] = Field(
        default_factory=dict, description="models under names of your own, which --model-id and the roles may give"
    )


class Nightly(Section):
    """The nightly build of a model (`ilab pipeline nightly`)."""

    replay: float = Field(
        0.5, ge=0, lt=1, description="share of what an increment trains on that earlier leaves are repeated with"
    )
    increments: int = Field(7, ge=0, description="builds on top of one another, after which one starts from the base")


class Config(Section):
    """The whole of ``ilab.yaml``, and of the user's own file."""

    profile: str | None = Field(
        None, description="name of a shipped profile (ilab config profiles), or path of a profile file"
    )
    environment: Environment = Field("dev", description="whose defaults the parameters have: dev or prod")
    pipeline: str = Field("instructlab", description="name of a shipped pipeline, or path of a pipeline file")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="pipeline parameters (see `ilab pipeline params`)"
    )
    models: Models = Models()
    rag: Rag = Rag()
    nightly: Nightly = Nightly()
    where: Where = Where()
    chat: Chat = Chat()


@dataclass(frozen=True)
class Loaded:
    """A Config with the folder that relative paths in it are read against, and the origin of every value given.

    ``notes`` are for people, a line each. ``files`` are those that were read, the upper last.
    """

    config: Config
    base: Path
    origins: Mapping[str, str]  # dotted path -> "ilab.yaml:3" / "profile gpu-24" / "--set" / "--store"
    profile: Profile | None = None
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # parameters of files of --parameters

    @property
    def store(self) -> Path:
        """Folder of the store: ``where.store``, else ``store`` in :attr:`home`; of one in a bucket, its mirror."""
        if self.bucket:
            where = self.config.where
            endpoint = where.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            cache = self.path(where.cache) if where.cache else cache_home()
            return cache / "stores" / fingerprint(self.bucket, endpoint or "")
        if self.config.where.store:
            return self.path(self.config.where.store)
        return self.home / "store"

    @property
    def bucket(self) -> str:
        """``s3://BUCKET/PREFIX`` of a store in an object store, ``""`` for one in a folder."""
        given = self.config.where.store or ""
        return given.rstrip("/") if given.startswith(S3) else ""

    def with_store(self, place: str) -> Loaded:
        """The same with another store."""
        where = self.config.where.model_copy(update={"store": place})
        return replace(self, config=self.config.model_copy(update={"where": where}))

    @property
    def home(self) -> Path:
        """Where a project keeps what is its own: ``.ilab`` beside ``ilab.yaml``, else the data home."""
        return self.base / ".ilab" if (self.base / PROJECT_FILE).exists() else data_home()

    def path(self, text: str) -> Path:
        """``text`` as a path, relative to the folder of ``ilab.yaml``."""
        return self.base / expanded(text)

    def parameters(self) -> dict[str, dict[str, Any]]:
        """The pipeline parameters by where they were given: the name of a file, or ``--set``; the upper last.

        Those of ``given`` lie over all settings.
        """
        layers: dict[str, dict[str, Any]] = {}
        for name, value in self.config.parameters.items():
            role = next((role for role, parameter in SERVED.items() if parameter == name), "")
            paths = (f"parameters.{name}", f"where.{role}.model", "parameters")
            origin = next((self.origins[path] for path in paths if path in self.origins), PROJECT_FILE)
            layers.setdefault(origin.partition(":")[0], {})[name] = value
        return {**layers, **{origin: dict(values) for origin, values in self.given.items()}}


def user_file() -> Path:
    """The user's own file, whether it is there or not."""
    return config_home() / USER_FILE


def load(
    folder: Path,
    *,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    user: Path | Literal["own"] | None = "own",
) -> Loaded:
    """The Config for ``folder``: profile, the user's file, the nearest ``ilab.yaml``, then ``--set``, then flags.

    ``flags`` maps dotted config paths to values; None means the flag was not given. ``user`` is another file in place
    of the user's own, None for none. Raises InputError with file and line for unknown keys and wrong values.
    """
    project = find_project(folder)
    base = (project.parent if project else folder).resolve()
    if user == "own":
        user = user_file() if user_file().is_file() else None
    layers: list[Layer] = []
    if user is not None:
        layers.append(of_user(read_source(user), in_project=project is not None))
    if project:
        layers.append(of_file(read_source(project)))
    given = of_command(sets, flags or {})
    profile, below = of_profile([*layers, given], base)
    merged = merge([below, *layers], given)
    try:
        config = Config.model_validate(merged.tree)
    except ValidationError as error:
        raise _explain(error.errors()[0], merged.places, "") from error
    config = _named_by_servers(config)
    notes = tuple(note for layer in layers for note in layer.notes)
    return Loaded(config, base, merged.labels, profile, notes, tuple(layer.file for layer in layers if layer.file))


def _named_by_servers(config: Config) -> Config:
    """The name of the model at a server is a parameter, since it is part of what is built; one that is given counts."""
    named = {
        name: endpoint.model
        for role, name in SERVED.items()
        if (endpoint := getattr(config.where, role)) is not None and endpoint.model and name not in config.parameters
    }
    return config.model_copy(update={"parameters": {**config.parameters, **named}}) if named else config


def check_source(source: Source) -> list[InputError]:
    """Every mistake in a file of settings, parameters too; empty where there is none."""
    from ilab.parameters import collect

    places = of_file(source).places
    wrong: list[InputError] = []
    try:
        Config.model_validate(source.tree)
    except ValidationError as error:
        wrong += [_explain(one, places, str(source.path)) for one in error.errors()]
    parameters = source.tree.get("parameters")
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        place = source.place(f"parameters.{name}")
        try:
            collect({place: {str(name): value}})
        except InputError as error:
            message = error.message if str(name) in error.message else f"{name} {error.message}"
            wrong.append(InputError(message, where=place, hint=error.hint))
    return wrong


def find_project(folder: Path) -> Path | None:
    """The nearest ``ilab.yaml`` at or above ``folder``."""
    for parent in (folder.resolve(), *folder.resolve().parents):
        if (parent / PROJECT_FILE).is_file():
            return parent / PROJECT_FILE
    return None


def flatten(config: BaseModel) -> dict[str, Any]:
    """Dotted path to value for every setting of a config."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, item in value.items():
                walk(f"{prefix}.{name}" if prefix else str(name), item)
        else:
            flat[prefix] = value

    walk("", config.model_dump(mode="json"))
    return flat


def _explain(first: Any, places: Mapping[str, str], otherwise: str) -> InputError:
    path = ".".join(str(part) for part in first["loc"])
    place, group = otherwise, path
    while group and group not in places:
        group = group.rpartition(".")[0]
    place = places.get(group, otherwise)
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        known = [key for key in known_paths() if _is_in(key, first["loc"][:-1])]
        close = difflib.get_close_matches(name, [key.rpartition(".")[2] for key in known], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known)) or 'nothing'}"
        return InputError(f"unknown setting {path!r}", where=place, hint=hint)
    if first["type"] == "missing":
        return InputError(f"{path} is needed beside what is given", where=place, hint=f"ilab config set {path} VALUE")
    return InputError(f"{path}: {first['msg'].removeprefix('Value error, ')}", where=place)


def _is_in(path: str, group: Sequence[Any]) -> bool:
    """Whether the setting ``path`` of :func:`known_paths` is one of the group of these names."""
    *parents, _ = path.split(".")
    return len(parents) == len(group) and all(one in (str(name), ANY) for one, name in zip(parents, group, strict=True))


def known_paths() -> list[str]:
    """Every setting and group that a file may have, by dotted path; ``*`` stands for names of the user's own."""
    return [path for path, _ in _fields(Config)]


def descriptions() -> dict[str, str]:
    """What each setting is, by dotted path."""
    return {path: info.description for path, info in _fields(Config) if info.description}


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        path = f"{prefix}.{name}".lstrip(".")
        yield path, info
        if get_origin(info.annotation) is dict:
            path = f"{path}.{ANY}"
        for candidate in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from _fields(candidate, path)

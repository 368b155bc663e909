"""Profiles: for a class of machines, settings of *where* and *how*, and the open models that fit into its memory.

A profile is a YAML file; those in this folder ship with ilab, a path names one of your own. Its ``where`` lies under
the files of the configuration. Its models are recommendations: they change no setting and no key, they are what
``ilab model download`` fetches and what :func:`wanted` names where the configuration names nothing else.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ilab.config_source import Source, read_source
from ilab.errors import InputError
from ilab.hardware import GIB, Hardware, Kind
from ilab.homes import expanded

if TYPE_CHECKING:
    from ilab.config import Loaded, NamedModel

CATALOGUE = "models"  # the file of this folder that is no profile
Role = Literal["teacher", "student", "judge", "embedder"]
ROLES: tuple[Role, ...] = get_args(Role)


class Model(BaseModel):
    """An open model on the Hugging Face hub.

    ``file`` is the one GGUF file of the repository that is meant, ``family`` names its prompt format where it has one
    of :data:`ilab.models.family.FAMILIES`, ``bytes`` is the size of the download (0: unknown), ``reckoned`` where no
    page says it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    file: str = ""
    family: str = ""
    parameters: float = Field(0, ge=0)
    bytes: float = Field(0, ge=0)
    reckoned: bool = False
    licence: str = "unknown"

    def __str__(self) -> str:
        """One line for people: repository, size of the download, licence."""
        about = "about " if self.reckoned else ""
        size = f"{about}{self.bytes / 1e9:.1f} GB" if self.bytes else "size unknown"
        return f"{self.repository}{f' ({self.file})' if self.file else ''}, {size}, licence {self.licence}"


class Fits(BaseModel):
    """The machines that a profile is for: at least ``memory`` GiB on each of at least ``devices``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    memory: float = Field(ge=0)
    devices: int = Field(1, gt=0)

    def __str__(self) -> str:
        """For people: ``a GPU with at least 22 GiB``."""
        least = f" with at least {self.memory:g} GiB" if self.memory else ""
        if self.kind == "gpu":
            return f"{self.devices} GPUs{least} each" if self.devices > 1 else f"a GPU{least}"
        return f"{'an Apple chip' if self.kind == 'apple' else 'no GPU'}{least}"


class Profile(BaseModel):
    """``low_fidelity``: models so small that the method is only approximated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    fits: Fits | None = None
    low_fidelity: bool = False
    models: dict[Role, Model] = Field(default_factory=dict)
    where: dict[str, Any] = Field(default_factory=dict)


class _Catalogue(BaseModel):
    checked: datetime.date
    models: dict[str, Model]


def shipped() -> dict[str, Profile]:
    """The profiles that come with ilab, by name."""
    return {name: _shipped(name) for name in sorted(_names())}


def checked() -> datetime.date:
    """The day on which repositories and licences of the recommended models were looked at."""
    return _catalogue().checked


def find_profile(name: str, base: Path, where: str = "") -> Profile:
    """The profile called ``name``, or the one in the file ``name``, relative to ``base``.

    Raises InputError for a name that is neither, and with file and line for a file that is no profile.
    """
    if name in _names():
        return _shipped(name)
    path = base / expanded(name)
    if not path.is_file():
        known = ", ".join(sorted(_names()))
        raise InputError(f"there is no profile {name!r}, and no such file", where=where, hint=f"known: {known}")
    return read_profile(path)


def read_profile(path: Path) -> Profile:
    """The profile in a file. Its models are named as in the shipped catalogue, or described in full."""
    return _profile(read_source(path))


def choose(hardware: Hardware) -> Profile:
    """The shipped profile that uses most of a machine: most devices times memory, of those that fit."""
    fitting = [profile for profile in shipped().values() if profile.fits and _fits(profile.fits, hardware)]
    if not fitting:  # a GPU too small for any profile of GPUs
        return _shipped("cpu")
    return max(fitting, key=lambda profile: (_size(profile), profile.name))


def why(profile: Profile, hardware: Hardware) -> str:
    """Why ``profile`` is taken for this machine, in a line."""
    fitting = choose(hardware)
    if fitting.name != profile.name:
        return f"it was named; {fitting.name} is the one that fits this machine"
    if profile.fits is None or not _fits(profile.fits, hardware):
        return f"{hardware.device_memory / GIB:.1f} GiB on a GPU are too little for every profile of GPUs"
    has = "the smallest GPU has" if len(hardware.gpus) > 1 else "this machine has"
    return f"it is for {profile.fits}; {has} {hardware.device_memory / GIB:.1f} GiB"


def profile_of(loaded: Loaded) -> Profile:
    """The profile that the configuration names, else the one that fits this machine."""
    from ilab.hardware import detect

    return loaded.profile or choose(detect())


def wanted(loaded: Loaded) -> dict[Role, Model]:
    """What each role should be played by on this machine: the configuration's models, else the profile's.

    Without a profile the machine is looked at. A model that the configuration names, and that is no recommended one,
    has no size and no licence here.
    """
    config = loaded.config
    profile = profile_of(loaded)
    base = str(config.parameters.get("sdg_base_model") or "")
    named: dict[Role, str] = {
        "teacher": config.models.teacher,
        "student": "" if base == "tiny" else base,
        "judge": config.models.judge,
        "embedder": config.models.embedder,
    }
    ids = config.models.named
    named = {role: model_by_id(loaded, name).path if name in ids else name for role, name in named.items()}
    return {
        role: _named(named[role]) if named[role] else profile.models[role]
        for role in ROLES
        if named[role] or role in profile.models
    }


def model_by_id(loaded: Loaded, name: str) -> NamedModel:
    """The entry ``name`` of ``models.named``, as ``--model-id`` gives it; its path is absolute where it is a path.

    Raises InputError, which names the nearest entry, for one that is not there.
    """
    from ilab.plugins import nearest

    named = loaded.config.models.named
    if name not in named:
        hint = nearest(name, list(named)) if named else f"name one: ilab config set models.named.{name}.path MODEL"
        raise InputError(f"no model has the id {name!r}", where="models.named", hint=hint)
    entry = named[name]
    here = loaded.path(entry.path)
    return entry.model_copy(update={"path": str(here)}) if here.exists() else entry


def fidelity_note(profile: Profile | None, served: bool) -> str:
    """One line where the models of ``profile`` only approximate the method; ``served``: a server plays the teacher."""
    if profile is None or not profile.low_fidelity:
        return ""
    small = {role: profile.models[role].repository for role in ("teacher", "student") if role in profile.models}
    if served:
        small.pop("teacher", None)
    named = " and ".join(f"{role} {name}" for role, name in small.items())
    teacher = "a larger teacher (where.teacher.url) would write more correct and more varied samples, "
    return (
        f"profile {profile.name}: a low-fidelity approximation of the method, with small models"
        f"{f' ({named})' if named else ''}: {'' if served else teacher}a larger student (sdg_base_model), all of its "
        "weights trained (train_method=full), would learn more of them"
    )


def _fits(fits: Fits, hardware: Hardware) -> bool:
    devices = len(hardware.gpus) or 1
    return fits.kind == hardware.kind and devices >= fits.devices and hardware.device_memory >= fits.memory * GIB


def _size(profile: Profile) -> float:
    return profile.fits.memory * profile.fits.devices if profile.fits else 0


def _named(name: str) -> Model:
    known = (model for model in _catalogue().models.values() if name in (model.repository, model.file))
    return next(known, Model(repository=name))


def _folder() -> Path:
    return Path(str(resources.files("ilab.profiles")))


@cache
def _names() -> frozenset[str]:
    return frozenset(path.stem for path in _folder().glob("*.yaml") if path.stem != CATALOGUE)


@cache
def _shipped(name: str) -> Profile:
    return read_profile(_folder() / f"{name}.yaml")


@cache
def _catalogue() -> _Catalogue:
    return _Catalogue.model_validate(read_source(_folder() / f"{CATALOGUE}.yaml").tree)


def _profile(source: Source) -> Profile:
    tree = {"name": source.path.stem, **source.tree}
    models = tree.get("models")
    if isinstance(models, Mapping):
        known = _catalogue().models
        for role, model in models.items():
            if isinstance(model, str) and model not in known:
                raise InputError(
                    f"there is no recommended model {model!r}",
                    where=source.place(f"models.{role}"),
                    hint=f"known: {', '.join(known)}; or give repository, bytes and licence",
                )
        tree["models"] = {role: known[model] if isinstance(model, str) else model for role, model in models.items()}
    try:
        return Profile.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        hint = (
            "a profile holds where and how only; what is built stands in ilab.yaml" if path in ("parameters",) else ""
        )
        message = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{path}: {message}", where=source.place(path), hint=hint) from error

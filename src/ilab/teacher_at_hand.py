"""Who plays the teacher: a server that is named or found, or a downloaded model, served for the time of a command.

    where.teacher.url              the server that is named
    a server at where.serve        one that runs on this machine anyway, if it serves what is wanted
    the models folder              what --model or models.teacher names, else what the profile recommends
    nobody                         samples are made by rule; an error where a teacher was asked for

A teacher is asked for by its name, by a flow that asks one, or by held-out questions of a teacher's. In a project what
its own file and the command say alone decides, so that it is the same build whatever else runs on a machine; outside of
projects one is looked for in any case. Where the teacher runs is *where*; its name is *what*, and the only thing of it
that a key depends on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ilab.actions import find_pipeline, parameters_of
from ilab.config import PROJECT_FILE, Endpoint, Loaded, data_home
from ilab.config_where import UNSERVED
from ilab.core.pipeline import read_pipeline
from ilab.errors import InputError
from ilab.homes import expanded
from ilab.profiles import Model, model_by_id, wanted
from ilab.transfer.shelf import Shelf, is_model, model_at, models_home

NAME = "sdg_teacher_model"
PATIENCE = 600.0  # seconds that a request may take to a server of ours, in which others may wait before it
FEW = 4  # requests at once to a model that a processor runs
OWN = (PROJECT_FILE, "--set", "flag")  # where what a project's build depends on is said

BY_SERVER = "to ask a server: --endpoint-url URL --model NAME, or where.teacher.url and where.teacher.model in a file"
BY_RULE = "to make samples by rule: -p sdg_pipeline=extractive"

Tell = Callable[[str], None]  # takes a line for people
Address = Callable[[], str]  # gives a server's base URL


@dataclass(frozen=True)
class Teacher:
    """The teacher of one command: its ``name`` ("" where there is none), in ``loaded`` its server.

    ``model`` is a model on this machine that is not served yet, see :func:`served`. ``notes`` are for people.
    """

    loaded: Loaded
    name: str = ""
    model: Path | None = None
    notes: tuple[str, ...] = ()


def teacher_of_build(loaded: Loaded, parameters: Mapping[str, Any], here: Path) -> tuple[Teacher, dict[str, Any]]:
    """The teacher of a build, and the build's ``parameters`` with the teacher's name. Raises as :func:`find_teacher`.

    ``here`` is the folder that the command was typed in. A pipeline or flow that asks no teacher gets none.
    """
    pipeline = read_pipeline(
        find_pipeline(loaded.config.pipeline, loaded.base), lambda n: find_pipeline(n, loaded.base)
    )
    used = {setting for body in pipeline.steps.values() for setting in body.values() if isinstance(setting, str)}
    values = {row["name"]: row["value"] for row in parameters_of(loaded, parameters)}
    flow = values["sdg_pipeline"]
    asks = _asks_teacher(flow, loaded.base) if flow else None
    if "$sdg_pipeline" not in used or (asks is False and values["eval_items"] != "teacher"):
        return Teacher(loaded), dict(parameters)
    needed = f"the flow {flow!r} asks a teacher" if asks else ""
    if values["eval_items"] == "teacher":
        needed = "eval_items=teacher asks a teacher"
    teacher = find_teacher(loaded, str(values[NAME]), needed=needed, otherwise=BY_RULE, here=here)
    return teacher, {**parameters, NAME: teacher.name} if teacher.name else dict(parameters)


def find_teacher(loaded: Loaded, name: str, *, needed: str = "", otherwise: str = "", here: Path) -> Teacher:
    """The teacher called ``name`` ("": whichever there is), or none where nobody asked for one.

    ``needed`` says for a message what cannot do without, ``otherwise`` what would do without. Raises ``InputError``
    where one is asked for and there is none, ``ServiceError`` where the server that is configured is not there.
    """
    endpoint = loaded.config.where.teacher
    if endpoint is not None:
        return _at_server(loaded, endpoint, name)
    in_project = (loaded.base / PROJECT_FILE).is_file()
    by_file = loaded.config.models.teacher
    if in_project and loaded.origins.get("models.teacher", "").partition(":")[0] not in OWN and not (name or needed):
        by_file = ""
    name = name or by_file
    if name in loaded.config.models.named:
        name = model_by_id(loaded, name).path
    if in_project and not (name or needed):
        return Teacher(loaded)
    names, url = _standing(loaded)
    if found := _served_as(names, name):
        note = f"the server at {url} plays the teacher: it serves {found}"
        own = Endpoint(url=url, api_key=loaded.config.where.serve.api_key)
        return Teacher(_at(loaded, own), found, notes=(note,))
    notes = (f"the server at {url} serves {', '.join(names)}, not {name}: it is not asked",) if names else ()
    model = _recommended(loaded, name)
    path = _downloaded(name, model, (here, loaded.base))
    if path is not None:
        return Teacher(_at(loaded, _temporary()), _name_of(path), path, notes)
    if not (name or needed):
        return Teacher(loaded)
    raise _nobody(name, needed, model, (names, url), otherwise)


@contextmanager
def served(teacher: Teacher, tell: Tell, log: Path) -> Iterator[Address]:
    """For the block: a function that gives the base URL of the teacher's server ("" where there is no teacher).

    A model that is not served yet is from the first call on, until the block is left, however it is. Its server writes
    to ``log``. The function raises as :func:`ilab.serving.temporary.temporary_server`.
    """
    with ExitStack() as stack:
        found: list[str] = []

        def address() -> str:
            if not found:
                found.append(_start(teacher, tell, log, stack))
            return found[0]

        yield address


def reached(teacher: Teacher, address: Address) -> Loaded:
    """The configuration with the teacher's address, which is served from now on. For what asks it in any case."""
    endpoint = teacher.loaded.config.where.teacher
    if endpoint is None or teacher.model is None:
        return teacher.loaded
    return _at(teacher.loaded, endpoint.model_copy(update={"url": address()}))


def serving_log() -> Path:
    """A new file for what the teacher's server says."""
    return data_home() / "logs" / "teacher" / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}.log"


def _start(teacher: Teacher, tell: Tell, log: Path, stack: ExitStack) -> str:
    where = teacher.loaded.config.where
    if teacher.model is None:
        return where.teacher.url if where.teacher else ""
    from ilab.serving.temporary import temporary_server

    log.parent.mkdir(parents=True, exist_ok=True)
    tell(f"serving {teacher.name} as the teacher ({teacher.model}); its log: {log}")
    stack.callback(tell, "the teacher is stopped")  # said behind it: callbacks run from the last to the first
    return stack.enter_context(temporary_server(teacher.model, teacher.name, where, log=log))


# -- servers -------------------------------------------------------------------------------------------------------


def _at_server(loaded: Loaded, endpoint: Endpoint, name: str) -> Teacher:
    """The server that is configured; without a name the only model that it serves."""
    if name:
        return Teacher(loaded, name)
    names = _listed(endpoint)
    if len(names) != 1:
        what = f"it serves: {', '.join(names)}" if names else "it keeps no list of its models"
        raise InputError(
            "the teacher's name is missing",
            where=NAME,
            hint=f"give the name that {endpoint.url} serves: --model NAME, or -p {NAME}=NAME; {what}",
        )
    return Teacher(loaded, names[0], notes=(f"the server at {endpoint.url} serves {names[0]}: it plays the teacher",))


def _listed(endpoint: Endpoint) -> tuple[str, ...]:
    import asyncio

    from ilab.models.openai import OpenAIModel

    async def models() -> tuple[str, ...]:
        client = OpenAIModel(endpoint)
        try:
            return await client.models()
        finally:
            await client.close()

    return asyncio.run(models())


def _standing(loaded: Loaded) -> tuple[list[str], str]:
    """What a server serves that runs where ours would, and its address; nothing where there is none."""
    from ilab.models.secret import read_secret
    from ilab.serving.temporary import answering

    place = loaded.config.where.serve
    return answering(place.address, read_secret(place.api_key, "where.serve.api_key")), place.address


def _served_as(names: list[str], wanted_name: str) -> str:
    """The served name that means the wanted model: the same, or the same file or folder name at its end."""
    if not wanted_name:
        return names[0] if names else ""
    if wanted_name in names:
        return wanted_name
    return next((name for name in names if _bare(name) == _bare(wanted_name)), "")


def _bare(name: str) -> str:
    return Path(name).name.removesuffix(".gguf").lower()


def _at(loaded: Loaded, endpoint: Endpoint) -> Loaded:
    where = loaded.config.where.model_copy(update={"teacher": endpoint})
    return replace(loaded, config=loaded.config.model_copy(update={"where": where}))


def _temporary() -> Endpoint:
    """The server of a model that is going to be served here."""
    from ilab.hardware import detect

    return Endpoint(url=UNSERVED, timeout=PATIENCE, in_flight=FEW if detect().kind == "cpu" else None)


# -- models --------------------------------------------------------------------------------------------------------


def _recommended(loaded: Loaded, name: str) -> Model | None:
    """The model called ``name``, or without a name the one that the profile recommends."""
    models = loaded.config.models.model_copy(update={"teacher": name})
    return wanted(replace(loaded, config=loaded.config.model_copy(update={"models": models}))).get("teacher")


def _downloaded(name: str, model: Model | None, folders: tuple[Path, ...]) -> Path | None:
    """Where the model lies: a path, a name in the models folder, or in ``models/`` here, as old commands put it."""
    given = [name, f"{name}.gguf", f"models/{name}", f"models/{name}.gguf"] if name else []
    for text in given:
        for folder in folders:
            path = folder / expanded(text)
            if is_model(path):
                return path.absolute()
    given += [text for text in (model.file, model.repository) if text] if model else []
    for text in given:
        path_there = model_at(text, models_home()) if Shelf(models_home()).find(text) else None
        if path_there is not None:
            return path_there
    return None


def _name_of(path: Path) -> str:
    """The name under which a model is served, and by which it is known: as in the models folder, else its own."""
    return path.relative_to(models_home()).as_posix() if path.is_relative_to(models_home()) else path.resolve().name


def _asks_teacher(flow: str, base: Path) -> bool:
    from ilab.sdg.stage import find_flow, found_flow

    return found_flow(find_flow(flow, base)).calls_teacher


def _nobody(name: str, needed: str, model: Model | None, standing: tuple[list[str], str], otherwise: str) -> InputError:
    """The error where a teacher was asked for: which, and the commands that would get one."""
    names, url = standing
    message = (
        f"the teacher {name!r} is not on this machine, and no server has it" if name else f"{needed}, and there is none"
    )
    ways = []
    if names:
        ways.append(f"to take what {url} serves: --set where.teacher.url={url} --set where.teacher.model={names[0]}")
    if model is not None and "/" in model.repository.strip("/") and not model.repository.startswith((".", "/", "~")):
        file = f" --filename {model.file}" if model.file else ""
        ways.append(f"to get it ({model}): ilab model download --repository {model.repository}{file}")
    ways += [BY_SERVER, otherwise] if otherwise else [BY_SERVER]
    return InputError(message, hint="\n       ".join(ways))

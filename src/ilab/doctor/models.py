"""The models of the roles that no server plays: whether they lie here, and whether they know how to chat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ilab.doctor.finding import Finding
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.profiles import Model, Role

SPOKEN_TO = ("teacher", "student", "judge")
WITHOUT_TEMPLATE = {  # what gives a role's model a format all the same
    "teacher": "ilab config set parameters.sdg_teacher_family NAME",
    "student": "ilab config set parameters.train_chat_template instructlab",
}


def local(loaded: Loaded) -> dict[Role, Model]:
    """The models by role that this machine has to run itself."""
    from ilab.profiles import wanted

    where = loaded.config.where
    played = {"teacher": where.teacher, "judge": where.judge}
    return {role: model for role, model in wanted(loaded).items() if played.get(role) is None}


def here(loaded: Loaded, model: Model) -> Path | None:
    """Where ``model`` lies on this machine; None where it does not."""
    return _found(loaded, model.repository) or _found(loaded, model.file)


def _found(loaded: Loaded, name: str) -> Path | None:
    """The model of that path or name. Looking is no use of it, so nothing is noted in the models folder."""
    from ilab.transfer.shelf import Shelf, models_home

    if not name:
        return None
    path, found = loaded.path(name), Shelf(models_home()).find(name)
    return path if path.exists() else found.path if found else None


def roles(loaded: Loaded) -> Iterator[Finding]:
    """Each role's model, and what serve and chat take by default."""
    for role, model in local(loaded).items():
        path = here(loaded, model)
        if path is None:
            name = f"--repository {model.repository}{f' --filename {model.file}' if model.file else ''}"
            needed = f"runs in which a model of this machine is the {role}"
            yield Finding(role, "note", f"{model} is not here", needed, f"ilab model download {name}")
        else:
            yield _spoken_to(role, path) if role in SPOKEN_TO else Finding(role, "ok", str(path))
    if loaded.config.models.default:
        yield _default(loaded)


def _default(loaded: Loaded) -> Finding:
    from ilab.profiles import model_by_id

    name = loaded.config.models.default
    path = _found(loaded, model_by_id(loaded, name).path if name in loaded.config.models.named else name)
    if path is None:
        needed = "serve, chat and compare, where the project has built none"
        return Finding(
            "models.default", "bad", f"{name} is not here", needed, f"ilab model download --repository {name}"
        )
    return _spoken_to("models.default", path)


def _spoken_to(name: str, path: Path) -> Finding:
    """A model that is there, and its chat template. That of a GGUF file is its server's business."""
    if not path.is_dir():
        return Finding(name, "ok", str(path))
    from ilab.models.chat_template import ChatTemplate

    needed = "chat, and training and asking it in its own format"
    try:
        source = ChatTemplate.load(path).source
    except InputError as error:
        return Finding(name, "bad", f"{path}: {error.message}", needed, error.hint or f"ilab model info {path.name}")
    if source is None:
        fix = WITHOUT_TEMPLATE.get(name, "ilab model list   (to choose another model)")
        return Finding(name, "note", f"{path} has no chat template", needed, fix)
    return Finding(name, "ok", str(path))

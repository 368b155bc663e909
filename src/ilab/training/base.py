"""The model a run starts from.

``tiny`` is made on the spot (:mod:`ilab.training.tiny`); anything else is a Hugging Face directory on this machine, or
one that is fetched from an address (:mod:`ilab.transfer.base_model`), taken into the store by hard link where the file
system allows, else by copy. Its identity is the hash of its files, wherever they come from.

It leaves here with the chat template that it is trained, asked and served with: its own, the one that somebody chose,
or the one that its special tokens name. Where the template needs tokens that the model lacks, it gets them, and the
rows of its embeddings for them. ``none`` takes a model as it is: without a template it learns from plain text alone.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ilab.artifacts import Checkpoint
from ilab.config import WebWhere
from ilab.core.events import Bus, Emit
from ilab.core.files import take_over
from ilab.core.step import Counts, Found, fingerprint
from ilab.core.store import digest_file
from ilab.data import digest_text
from ilab.errors import InputError, SetupError
from ilab.models.chat_template import ChatTemplate, json_object
from ilab.models.renderer import Renderer
from ilab.models.templates import CHOICE, NAMES, Template, choose_template, named_template
from ilab.models.templates.adopt import Adoption, plan_adoption, write_adopted
from ilab.transfer.address import parse
from ilab.transfer.base_model import bring, is_remote, look
from ilab.transfer.open import Access
from ilab.transfer.shelf import model_at

TINY = "tiny"
NONE = "none"  # the choice of no chat template
NEEDED = ("config.json", "tokenizer.json")


def find_base(locator: str, folder: Path, access: Access | None = None) -> Found:
    """Resolve a base model: ``tiny``, a directory relative to ``folder``, a name in the models folder, or an address.

    Raises InputError for anything that is not a Hugging Face directory with safetensors.
    """
    if is_remote(locator):
        return _find_remote(locator, access or Access(WebWhere()))
    if locator.startswith("file://"):
        locator = parse(locator).path
    if locator == TINY:
        from ilab.training.tiny import TinySpec, primer

        digest = fingerprint(TINY, TinySpec().model_dump(mode="json"), digest_text(primer()))
        return Found(f"tiny:{digest}", TINY)
    path = model_at(locator, folder)
    if path is None or not path.is_dir():
        raise InputError(
            f"no such base model: {locator}",
            where="sdg_base_model",
            hint="give a Hugging Face directory on this machine, a name in `ilab model list` "
            "(get one with `ilab model download --repository OWNER/NAME`), an address (hf://OWNER/NAME, "
            "oci://HOST/PATH:TAG, s3://BUCKET/PREFIX), or `tiny` for the built-in one",
        )
    _check_whole([file.name for file in path.iterdir()], str(path))
    return Found(_identity({file.name: digest_file(file) for file in model_files(path)}), str(path))


def _find_remote(locator: str, access: Access) -> Found:
    seen = look(locator, access, Bus().for_step("base"))
    _check_whole(list(seen.files), locator)
    files = {name: sha256 for name, sha256 in seen.files.items() if _is_kept(name)}
    details = {"folder": str(seen.folder), "missing": str(seen.missing)}
    return Found(_identity(files), locator, seen.revision, details)


def _check_whole(names: Sequence[str], where: str) -> None:
    missing = [name for name in NEEDED if name not in names]
    if missing or not any(name.endswith(".safetensors") for name in names):
        raise InputError(
            f"not a Hugging Face model directory: {', '.join(missing) or '*.safetensors'} is missing",
            where=where,
            hint="the directory needs config.json, tokenizer.json and *.safetensors",
        )


def _identity(files: Mapping[str, str]) -> str:
    return f"sha256:{fingerprint(dict(files))}"


def base_folder(found: Found, access: Access, emit: Emit) -> Path:
    """The folder of a base model on this machine; one that has an address is fetched.

    Raises InputError where other contents stand there than when the plan was made.
    """
    if not is_remote(found.locator):
        return Path(found.locator)
    folder = bring(found.locator, access, emit)
    if _identity({file.name: digest_file(file) for file in model_files(folder)}) != found.digest:
        message = "the model there is no longer the one that the plan was made with"
        raise InputError(message, where=found.locator, hint="run the same command again")
    return folder


def model_files(path: Path) -> list[Path]:
    """The files of a model directory that belong to the model: no code, no pickles, no subfolders."""
    return sorted(file for file in path.iterdir() if file.is_file() and _is_kept(file.name))


def _is_kept(name: str) -> bool:
    return "/" not in name and Path(name).suffix in (".safetensors", ".json", ".jinja", ".model", ".txt", ".md")


def find_template(choice: str, folder: Path) -> Found:
    """Resolve a chat template: a built-in one's name, a file relative to ``folder``, or ``none``.

    Raises InputError for anything else.
    """
    if choice == NONE:
        return Found(f"template:{NONE}", NONE)
    return Found(f"template:{digest_text(named_template(choice, folder).source)}", choice, details={"in": str(folder)})


def check_template(base: Found, choice: str, folder: Path, method: str) -> list[str]:
    """What a person should know of the chat template that ``base`` will have, before anything is made; a line each.

    Raises InputError where there is none that it could have, and where ``method`` cannot learn its stop token.
    """
    if choice == NONE or (base.locator == TINY and not choice):  # the built-in one comes with its own
        return []
    with tokenizer_of((base.details or {}).get("folder") or base.locator) as model:
        plan = _plan(model, named_template(choice, folder) if choice else None)
        if plan is None and ChatTemplate.load(model).source is None:
            raise InputError(
                "this base model has no chat template, and its special tokens fit none of the built-in ones or several",
                where=base.locator,
                hint=f"name one with -p {CHOICE}=NAME (model train: --chat-template NAME): {NAMES}, a file with its "
                f"Jinja text, or `{NONE}` to train on plain text alone",
            )
    if plan is None or not plan.added:
        return []
    told = f"the chat template gives {base.locator} {len(plan.added)} new tokens: {', '.join(plan.added)}"
    if method == "full":
        return [told]
    if plan.unlearnable_stop:
        raise InputError(
            f"{told}; the one that ends an answer is among them, and {method} does not learn new tokens, so the tuned "
            "model would never stop",
            where=CHOICE,
            hint="train all weights (-p train_method=full), or take a template whose tokens the model has",
        )
    return [f"{told}; {method} does not learn them, only how they are used (-p train_method=full does)"]


def make_base(
    found: Found, out: Checkpoint, template: tuple[str, Found] | None = None, folder: Path | None = None
) -> Counts:
    """Write the base model as a checkpoint, with the chat template of this digest and place.

    ``folder`` is where the model lies, if that is not where it was found.

    Raises ``InputError`` where the template has changed since the plan was made.
    """
    if found.locator == TINY:
        from ilab.training.tiny import TinySpec, make_tiny

        counts = {"parameters": make_tiny(out.model, TinySpec())}
        choice: dict[str, Any] = {"name": TINY, "rule": "made on the spot, untrained", "weights": {}}
    else:
        out.model.mkdir()
        for file in model_files(folder or Path(found.locator)):
            take_over(str(file.resolve()), str(out.model / file.name))
        _refuse_code(out.model)
        counts = {"files": len(list(out.model.iterdir()))}
        choice = {"name": Path(found.locator).name, "rule": "given", "weights": {}}
    as_it_is = template is not None and template[1].locator == NONE
    plan = None if as_it_is else _plan(out.model, _as_planned(*template) if template else None)
    if plan is not None:
        from ilab.training.vocabulary import write_vocabulary

        write_vocabulary(out.model, plan)
        write_adopted(plan, out.model)
        choice["chat_template"] = plan.renderer.template_name
        counts["new_tokens"] = len(plan.added)
    out.write_choice(choice)
    return counts


@contextmanager
def tokenizer_of(locator: str) -> Iterator[Path]:
    """A folder with the tokenizer of a base model; the built-in one's is made for the occasion."""
    if locator != TINY:
        yield Path(locator)
        return
    from ilab.training.tiny import TinySpec, write_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), TinySpec())
        yield Path(folder)


def _plan(model: Path, template: Template | None) -> Adoption | None:
    """How ``model`` gets the template that was chosen, or without one that its special tokens name; None: it does not.

    A model that has a template of its own needs no other.
    """
    if template is None:
        if ChatTemplate.load(model).source is not None:
            return None
        special = Renderer.load(model).special_tokens.values()
        template = choose_template(special, str(json_object(model / "config.json").get("model_type", "")))
    return None if template is None else plan_adoption(model, template)


def _as_planned(digest: str, found: Found) -> Template:
    template = named_template(found.locator, Path((found.details or {})["in"]))
    if f"template:{digest_text(template.source)}" != digest:
        raise InputError(
            "the chat template has changed since the run began", where=found.locator, hint="run the same command again"
        )
    return template


def _refuse_code(model: Path) -> None:
    """A model whose config asks for its own Python code cannot be loaded, so it is refused before any work."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config:
        raise SetupError(
            "this model needs Python code from its own repository, which is never run",
            where=str(model / "config.json"),
            hint="use a model of a family that transformers knows, or remove auto_map if it does",
        )

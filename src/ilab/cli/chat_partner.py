"""Whom a chat talks to: a server, or a model of this machine, in this process or behind a server of its own.

--endpoint-url, chat.endpoint ─▶ that server
--model-path, --model-id      ─▶ that model
otherwise                     ─▶ the server that answers at where.serve, else ``-m`` or the last build's model
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from ilab.cli.app import Options
from ilab.cli.outputs import log_file
from ilab.config import Endpoint, Loaded, ServeWhere
from ilab.errors import InputError, SetupError

if TYPE_CHECKING:
    from ilab.chat.served import ServedTalker
    from ilab.chat.talkers import Talker

OPTIONS = {"url": "--endpoint-url", "api_key": "--api-key", "client_key_password": "--tls-client-passwd"}
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Partner:
    """``system`` is the system prompt that the model is used with; ``switch`` gives another model by name, ``names``
    are those that there are, ``about`` tells what the model is."""

    talker: Talker
    system: str
    switch: Callable[[str], Talker]
    names: Callable[[Talker], list[str]]
    about: Callable[[Talker], Rows]


def meet(options: Options, loaded: Loaded, given: dict[str, Any], stack: ExitStack) -> Partner:
    """The partner that the options ``given`` and the settings mean; a server that is started for it ends with
    ``stack``. Raises ``InputError`` where no model is meant, ``ServiceError`` where the server cannot be asked."""
    named = given["model"] or ""
    if given["endpoint_url"] or loaded.config.chat.endpoint:
        return _at(_endpoint(loaded, given), named, loaded)
    if not given["model_path"] and not given["model_id"]:
        endpoint = _endpoint(loaded, given)
        click.echo(f"Trying to connect to model server at {endpoint.url}", err=True)
        served = _answering(endpoint)
        if served and (not named or _matching(named, served) or not _is_here(options, loaded, named)):
            return _at(endpoint, named, loaded)
    return here(options, loaded, given, stack)


def _server(place: ServeWhere) -> dict[str, Any]:
    """The server that `ilab model serve` starts on this machine, or the one that it is told of."""
    return {"url": place.address, "api_key": place.api_key}


def _endpoint(loaded: Loaded, given: dict[str, Any]) -> Endpoint:
    """``chat.endpoint`` with what the options say over it."""
    url = given["endpoint_url"]
    configured = loaded.config.chat.endpoint
    own = _server(loaded.config.where.serve) if url is None else {"url": url}
    settings = configured.model_dump() if configured and url in (None, configured.url) else own
    key = given["api_key"]
    more = {
        "api_key": "" if key == "no_api_key" else key,  # what InstructLab takes for none
        "insecure": given["tls_insecure"],
        "client_cert": given["tls_client_cert"] or None,
        "client_key": given["tls_client_key"] or None,
        "client_key_password": given["tls_client_passwd"] or None,
    }
    try:
        return Endpoint.model_validate(
            {**settings, **{name: value for name, value in more.items() if value is not None}}
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "chat.endpoint"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(message, where=OPTIONS.get(name, name), hint="see: ilab model chat --help") from None


def _answering(endpoint: Endpoint) -> list[str]:
    from ilab.models.secret import read_secret
    from ilab.serving.temporary import answering

    return answering(endpoint.url, read_secret(endpoint.api_key, "--api-key"))


def _matching(named: str, served: list[str]) -> str:
    """The served name that ``named`` means: itself, or one whose last part is that of a path; empty for none."""
    return next((name for name in served if named in (name, Path(name).name) or Path(named).name == name), "")


def _is_here(options: Options, loaded: Loaded, name: str) -> bool:
    from ilab.transfer.shelf import model_at

    return name in loaded.config.models.named or model_at(name, options.directory) is not None


# -- a server -------------------------------------------------------------------------------------------------------


def _at(endpoint: Endpoint, named: str, loaded: Loaded) -> Partner:
    from ilab.chat.served import ServedTalker

    chat = loaded.config.chat
    try:
        talker = ServedTalker(endpoint, temperature=chat.temperature, max_tokens=chat.max_tokens)
    except SetupError as error:
        hint = (
            "check --tls-client-cert, --tls-client-key and --tls-client-passwd, or chat.endpoint: a PEM file is wanted"
        )
        raise SetupError(error.message, where=error.where, hint=hint) from error
    asked = named or endpoint.model
    meant = _matching(asked, talker.served)
    if asked and talker.served and not meant:
        click.echo(
            f"Requested model {asked} is not served by the server. Proceeding to chat with served model: {talker.name}",
            err=True,
        )
    elif asked:
        talker.use(meant or asked)
    if not talker.name:
        talker.use("")  # raises: there is nothing to talk to
    click.echo(f"connected to {endpoint.url}, which serves {', '.join(talker.served[:5]) or talker.name}", err=True)
    known = loaded.config.models.named.get(talker.name)

    def switch(name: str) -> Talker:
        talker.use(name)
        return talker

    def about(_: Talker) -> Rows:
        return list(talker.told().items())

    return Partner(talker, known.system_prompt if known else "", switch, lambda _: talker.served, about)


# -- a model of this machine ----------------------------------------------------------------------------------------


def here(options: Options, loaded: Loaded, given: dict[str, Any], stack: ExitStack) -> Partner:
    from ilab.outcome import model_to_use

    if given["model_id"]:
        from ilab.profiles import model_by_id

        model_by_id(loaded, given["model_id"])  # raises where it is none
    folder, name = model_to_use(loaded, given["model_path"] or given["model_id"] or given["model"], options.directory)
    system = _system_prompt(loaded, folder, given["model_id"] or given["model"] or loaded.config.models.default)
    log = log_file(given["serving_log_file"]) if given["serving_log_file"] else None

    def open_(path: Path, called: str) -> Talker:
        return _loaded(loaded, path, called) if path.is_dir() else _behind_server(loaded, path, called, (stack, log))

    known: dict[str, Path] = {}

    def switch(wanted: str) -> Talker:
        path, called = model_to_use(loaded, wanted, options.directory)
        known[called] = path
        return open_(path, called)

    def names(_: Talker) -> list[str]:
        from ilab.transfer.shelf import Shelf, models_home

        return [*loaded.config.models.named, *(model.name for model in Shelf(models_home()).models())]

    known[name] = folder
    if folder.is_dir():
        click.echo(f"{name} answers in this process", err=True)
    if folder.is_dir() and log:
        click.echo("note: --serving-log-file stays empty: no server is needed for this model", err=True)
    talker = open_(folder, name)
    return Partner(talker, system, switch, names, lambda now: _about(loaded, known[now.name], now))


def _loaded(loaded: Loaded, folder: Path, name: str) -> Talker:
    """The model in this process."""
    from ilab.cli.threads import passive_threads

    passive_threads()
    from ilab.chat.talkers import LocalTalker
    from ilab.models.local import LocalModel, Sampling

    where, chat = loaded.config.where, loaded.config.chat
    model = LocalModel.load(folder, where.device, where.threads)
    return LocalTalker(model, Sampling(max_tokens=chat.max_tokens, temperature=chat.temperature), name)


def _behind_server(loaded: Loaded, file: Path, name: str, place: tuple[ExitStack, Path | None]) -> ServedTalker:
    """The model of a GGUF file, behind a server for as long as the chat lasts."""
    from ilab.chat.served import ServedTalker
    from ilab.config import data_home
    from ilab.serving.temporary import temporary_server

    stack, log = place
    if not file.is_file():
        raise InputError("there is no such model", where=str(file), hint="see: ilab model list")
    click.echo(f"starting a server for {file.name} …", err=True)
    chat = loaded.config.chat
    log = log or data_home() / "chatlogs" / "server.log"
    url = stack.enter_context(temporary_server(file, name, loaded.config.where, log=log))
    return ServedTalker(
        Endpoint.model_validate({"url": url}), name, temperature=chat.temperature, max_tokens=chat.max_tokens
    )


def _system_prompt(loaded: Loaded, folder: Path, named: str | None) -> str:
    """What the model is used with: as ``models.named`` says, else as it was trained here."""
    from ilab.about import system_prompt
    from ilab.transfer.stores import open_store

    known = loaded.config.models.named.get(named or "")
    if known and known.system_prompt:
        return known.system_prompt
    return system_prompt(open_store(loaded), folder) if folder.is_dir() and loaded.store.is_dir() else ""


def _about(loaded: Loaded, path: Path, talker: Talker) -> Rows:
    from ilab.about import about, about_lines
    from ilab.cli.render import short_names
    from ilab.transfer.describe import describe
    from ilab.transfer.shelf import Model, Shelf, models_home
    from ilab.transfer.stores import open_store

    root = models_home()
    found = Shelf(root).find(path.relative_to(root).as_posix()) if path.is_relative_to(root) else None
    facts = describe(found or Model(talker.name, path, None, None))
    base = loaded.base.resolve()
    rows = [
        ("model", talker.name),
        ("path", str(path.relative_to(base) if path.is_relative_to(base) else path)),
        ("format", f"{facts.format} {facts.quantisation}".strip()),
        ("weights", f"{facts.parameters:,}" if facts.parameters else ""),
        ("context", f"{talker.window:,} tokens" if talker.window else ""),
        ("licence", facts.licence),
        ("came from", f"{found.record.source} {found.record.revision[:12]}".strip() if found and found.record else ""),
    ]
    made = about(open_store(loaded) if loaded.store.is_dir() else None, path)
    scores = made.get("scores", [])
    names = short_names([score["name"] for score in scores])
    made["scores"] = [{**score, "name": names[score["name"]]} for score in scores]
    return [*((name, text) for name, text in rows if text), *about_lines(made)]

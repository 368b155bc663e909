"""The judge as the command line names it, and a place to ask it without a run of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ilab.cli.app import Options
from ilab.errors import InputError

if TYPE_CHECKING:
    from ilab.config import Loaded
    from ilab.core.step import Site
    from ilab.evaluation.calibration import Calibration
    from ilab.evaluation.judge import Judge

F = TypeVar("F", bound=Callable[..., Any])
RULE = "rule"  # the judge that is no model
FILES = (("client_cert", "tls_client_cert"), ("client_key", "tls_client_key"))

JUDGE_OPTIONS = (
    click.option(
        "--judge-model",
        metavar="NAME",
        help="Name under which the judge is served; `rule` is no model.  [default: eval_judge_model of the project]",
    ),
    click.option("--judge-endpoint", metavar="URL", help="The judge's server.  [config: where.judge.url]"),
    click.option("--judge-api-key", metavar="REF", help="env:NAME or file:PATH.  [config: where.judge.api_key]"),
)
TLS_OPTIONS = (
    click.option("--tls-insecure", is_flag=True, help="Do not check the servers' certificates; for tests only."),
    click.option("--tls-client-cert", metavar="FILE", help="Certificate to show to the servers."),
    click.option("--tls-client-key", metavar="FILE", help="Its private key."),
    click.option("--tls-client-passwd", metavar="REF", help="env:NAME or file:PATH that holds the key's password."),
)


def judge_options(command: F) -> F:
    """Add the options that name a judge and say how its server is reached."""
    for option in reversed((*JUDGE_OPTIONS, *TLS_OPTIONS)):
        command = option(command)
    return command


def load_with_judge(options: Options, given: Mapping[str, Any], **flags: Any) -> Loaded:
    """The configuration, with the judge's server as given; ``flags`` as :meth:`Options.load` takes them."""
    if given["judge_endpoint"] or options.load().config.where.judge is not None:
        flags["where__judge__url"] = given["judge_endpoint"]
        flags["where__judge__api_key"] = given["judge_api_key"]
        flags |= {f"where__judge__{name}": value for name, value in reaching(options, given).items()}
        if given.get("max_workers", "auto") != "auto":
            flags["where__judge__in_flight"] = int(given["max_workers"])
    loaded: Loaded = options.load(**flags)
    return loaded


def reaching(options: Options, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the TLS options say of an endpoint, ``None`` where they say nothing."""
    files = {
        name: str(options.directory / Path(given[option]).expanduser()) if given.get(option) else None
        for name, option in FILES
    }
    return {
        **files,
        "client_key_password": given.get("tls_client_passwd"),
        "insecure": given.get("tls_insecure") or None,
    }


def judge_name(loaded: Loaded, given: str | None) -> str:
    """The name that is given, else the one that the project's runs take; empty where there is none."""
    return given or str(loaded.config.parameters.get("eval_judge_model") or "")


def given_judge(name: str, site: Site) -> Judge:
    """The judge served as ``name``, or the one by rule. Raises ``InputError`` where there is no name or no server."""
    from ilab.evaluation.judge import open_judge
    from ilab.evaluation.rule_judge import RuleJudge

    if name == RULE:
        return RuleJudge()
    judge = open_judge(site.where, name, memo=site.memo("judge"), emit=site.emit, stopping=site.stopping)
    if judge is None:
        raise InputError(
            "no server is known that judges",
            where="where.judge",
            hint="--judge-endpoint URL --judge-model NAME; a folder is served with `ilab model serve "
            "--model-path DIR`; --judge-model rule compares words, without a model",
        )
    return judge


def shown(found: Calibration, following: str) -> Iterator[str]:
    """A calibration for people, with the command that makes use of it."""
    from ilab.evaluation.calibration import trusted

    yield found.line()
    if found.agreement is not None:
        yield f"agreement     {100 * found.agreement:.0f} % of {found.n} answers, good or bad"
    if found.weighted is not None:
        yield f"on marks      κ {found.weighted:.2f}, where near is better than far"
    if found.passes_apart is not None:
        yield f"order         moves a mark by {found.passes_apart:.2f} on average"
    if found.probes:
        yield f"probes        {found.probes - found.probes_failed} of {found.probes} known answers recognised"
    for why, count in found.unscored.items():
        yield f"not marked    {count} × {why}"
    if found.by_rule:
        yield "              words and numbers were compared: no model judged"
    if trusted(found):
        yield f"Next: {following}"
    else:
        yield f"Its marks are shown, and no gate hangs on them. All the same: {following}"


@contextmanager
def asking_site(loaded: Loaded, step: str) -> Iterator[Site]:
    """Where something is asked apart from a run: the store's memos, progress under the name ``step``."""
    from ilab.actions import where_of
    from ilab.cli.live import view
    from ilab.cli.threads import passive_threads
    from ilab.core.events import Bus
    from ilab.core.run import Engine
    from ilab.core.step import Site
    from ilab.transfer.stores import open_store

    passive_threads()
    engine = Engine(open_store(loaded), where_of(loaded))
    try:
        with tempfile.TemporaryDirectory() as scratch, view() as shown:
            engine.bus = Bus([shown])
            yield Site(
                where=engine.where,
                work=Path(scratch),
                found={},
                emit=engine.bus.for_step(step),
                memo=engine.memo,
                stopping=engine.stop.is_set,
                history=list,
            )
    finally:
        engine.close()

"""The client of a Data Science Pipelines server (KFP API): upload, submit, look, stop. Wraps kfp's own.

A token is given by reference (``env:NAME`` or ``file:PATH``), or is the service account's own in a pod; it is never
printed. What the server or the network does wrong becomes a ``ServiceError``, once, here.
"""

from __future__ import annotations

import os
import ssl
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ilab.core.kubeconfig import POD
from ilab.errors import InputError, ServiceError, SetupError, Stopped
from ilab.kubeflow.run_details import Run, Task, tasks_of

ACCOUNT_TOKEN = POD / "token"
TIMEOUT = 60.0  # seconds without a byte of a log
POLL = 5.0  # seconds between two looks at a run
AWAY = 600.0  # seconds that the server may be away while a run is waited for
MOST = 100  # entries of one page of a list


@dataclass(frozen=True)
class Connection:
    """``host``: the API's address; ``token``: a reference, empty for the service account's; ``ca_file``: to trust."""

    host: str
    token: str = ""
    namespace: str = ""
    ca_file: str = ""


@dataclass(frozen=True)
class Schedule:
    """A recurring run: ``cron`` has six fields, seconds first."""

    id: str
    name: str
    cron: str
    enabled: bool


class Kubeflow:
    """One server. Raises SetupError without kfp, InputError for what cannot be sent, ServiceError for the server's."""

    def __init__(self, connection: Connection) -> None:
        if not connection.host.startswith(("https://", "http://")):
            raise InputError(
                f"no address of a pipeline server: {connection.host or '(none)'}",
                where="where.kubeflow.host",
                hint="oc get route ds-pipeline-dspa -o jsonpath='{.spec.host}' tells it; then ilab config set "
                "where.kubeflow.host https://HOST",
            )
        self._tls = _trust(connection.ca_file)
        self.connection = connection
        kfp = need_kfp()
        with _asking(connection.host):
            self._client = _once(kfp)(
                host=connection.host,
                credentials=_Token(connection.token) if _token(connection.token) else None,
                namespace=connection.namespace or "kubeflow",
                ssl_ca_cert=connection.ca_file or None,
            )
            self._client.get_kfp_healthz()  # the constructor asks only where it is given no namespace

    def submit(self, package: Path, name: str, experiment: str, arguments: Mapping[str, Any]) -> str:
        """Start a run of the compiled file; returns its id."""
        with _asking(self.connection.host):
            self._client.create_experiment(experiment, namespace=self.connection.namespace or None)
            made = self._client.create_run_from_pipeline_package(
                str(package),
                arguments=dict(arguments),
                run_name=name,
                experiment_name=experiment,
                namespace=self.connection.namespace or None,
                enable_caching=False,
            )
        return str(made.run_id)

    def recur(self, package: Path, name: str, experiment: str, cron: str, arguments: Mapping[str, Any]) -> str:
        """Start a run at every time of ``cron`` (six fields, seconds first), one at a time; returns its id."""
        with _asking(self.connection.host):
            made = self._client.create_recurring_run(
                experiment_id=self._experiment(experiment),
                job_name=name,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                pipeline_package_path=str(package),
                params=dict(arguments),
                enable_caching=False,
            )
        return str(made.recurring_run_id)

    def schedules(self, experiment: str, name: str = "") -> list[Schedule]:
        """The recurring runs of an experiment, newest first; with ``name`` those that are called so."""
        wanted = {"filter": _where("EQUALS", name)} if name else {}
        found: list[Schedule] = []
        with _asking(self.connection.host):
            experiment_id, page = self._experiment(experiment), ""
            while True:
                told = self._client.list_recurring_runs(
                    page, page_size=MOST, sort_by="created_at desc", experiment_id=experiment_id, **wanted
                )
                found += [_schedule(one) for one in told.recurring_runs or []]
                page = told.next_page_token or ""
                if not page:
                    return found

    def unschedule(self, schedule_id: str) -> None:
        """Remove a recurring run. The runs that it started stay, also one that is under way."""
        with _asking(self.connection.host):
            self._client.delete_recurring_run(schedule_id)

    def upload(self, package: Path, name: str, version: str) -> str:
        """A new version of the pipeline ``name``, or its first; returns the version's id."""
        with _asking(self.connection.host):
            known = self._client.get_pipeline_id(name)
            if known is None:
                self._client.upload_pipeline(
                    str(package), pipeline_name=name, namespace=self.connection.namespace or None
                )
                known = self._client.get_pipeline_id(name)
            made = self._client.upload_pipeline_version(str(package), version, pipeline_id=known)
        return str(made.pipeline_version_id)

    def run(self, run_id: str) -> Run:
        """The run as it is now."""
        with _asking(self.connection.host):
            return _run(self._client.get_run(run_id))

    def runs(self, experiment: str, most: int = 20) -> list[Run]:
        """The newest runs of an experiment, newest first; none of one that nothing was submitted to."""
        with _asking(self.connection.host):
            try:
                kept = self._client.get_experiment(
                    experiment_name=experiment, namespace=self.connection.namespace or None
                )
            except ValueError:  # kfp's word for one that is not there
                return []
            found = self._client.list_runs(experiment_id=kept.experiment_id, page_size=most, sort_by="created_at desc")
            return [_run(one) for one in found.runs or []]

    def named(self, experiment: str, part: str) -> list[Run]:
        """The newest runs of an experiment that have ``part`` in their name, newest first."""
        with _asking(self.connection.host):
            found = self._client.list_runs(
                experiment_id=self._experiment(experiment),
                page_size=MOST,
                sort_by="created_at desc",
                filter=_where("IS_SUBSTRING", part),
            )
            return [_run(one) for one in found.runs or []]

    def _experiment(self, name: str) -> str:
        """The id of an experiment, which is made where there is none."""
        return str(self._client.create_experiment(name, namespace=self.connection.namespace or None).experiment_id)

    def wait(self, run_id: str, seconds: float | None, seen: Callable[[Run], None]) -> Run:
        """Look until the run has ended; ``seen`` gets it every time. A server that goes away for a while is waited for.

        Raises Stopped after ``seconds``.
        """
        until = None if seconds is None else time.monotonic() + seconds
        found, heard = self.run(run_id), time.monotonic()
        while True:
            seen(found)
            if found.ended:
                return found
            if until is not None and time.monotonic() > until:
                raise Stopped(f"the run {run_id} is still {found.state.lower()}", hint="it goes on; wait again for it")
            time.sleep(POLL)
            try:
                found, heard = self.run(run_id), time.monotonic()
            except ServiceError as error:
                if not error.retryable or time.monotonic() - heard > AWAY:
                    raise

    def log(self, run_id: str, task: Task) -> Iterator[str]:
        """The lines that a task's pod printed, as the server still has them (``apis/v1alpha1 …/log``)."""
        import httpx2

        headers = {"Authorization": f"Bearer {token}"} if (token := _token(self.connection.token)) else {}
        base, status = f"{self.connection.host.rstrip('/')}/apis/v1alpha1/runs/{quote(run_id, safe='')}/nodes", 0
        try:
            with httpx2.Client(verify=self._tls, headers=headers, timeout=TIMEOUT) as client:
                for pod in task.pods:
                    with client.stream("GET", f"{base}/{quote(pod, safe='')}/log") as answer:
                        if answer.status_code == 200:
                            yield from answer.iter_lines()
                            return
                        status = answer.status_code
        except httpx2.HTTPError as error:
            host = self.connection.host
            raise ServiceError(f"the log broke off: {_short(error)}", where=host, retryable=True) from error
        if task.pods:
            hint = f"the pod {task.pods[0]} may be gone; the run's artifacts keep its main-logs in object storage"
            message = f"no log of {task.name}: the server answered {status}"
            raise ServiceError(message, where=self.connection.host, hint=hint)

    def cancel(self, run_id: str) -> None:
        """Stop a run; what it made stays."""
        with _asking(self.connection.host):
            self._client.terminate_run(run_id)


def need_kfp() -> Any:
    """kfp, with its notices of what will change kept quiet. Raises SetupError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import kfp
            import kfp.kubernetes
    except ImportError as error:
        raise SetupError("kfp is not installed", hint="pip install 'ilab[kubeflow]'") from error
    return kfp


def _once(kfp: Any) -> Any:
    """kfp's client, which asks for the server's health once. Its own asks five times within 25 seconds whatever the
    answer was, and keeps the answer to itself: nobody would learn that it is the token."""
    from kfp_server_api.exceptions import ApiException

    class Client(kfp.Client):  # type: ignore[misc]
        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            told, _, headers = self._healthz_api.healthz_service_get_healthz_with_http_info()
            if "json" not in str(headers.get("Content-Type", "")):
                raise ApiException(status=401, reason="a page for people, maybe to log in at")
            return told

    return Client


def of_this_pod(pod: Path = POD) -> tuple[str, str]:
    """Address and certificates of the pipeline server that ``deploy/`` puts beside this pod; empty where this is none.

    The address has the namespace, because the certificate that OpenShift gives to a Service names it so.
    """
    if not os.environ.get("KUBERNETES_SERVICE_HOST") or not (pod / "namespace").is_file():
        return "", ""
    trusted = pod / "service-ca.crt"
    host = f"https://ds-pipeline-dspa.{(pod / 'namespace').read_text().strip()}.svc:8443"
    return host, str(trusted) if trusted.is_file() else ""


def _token(reference: str) -> str:
    from ilab.models.secret import read_secret

    if reference:
        return read_secret(reference)
    return ACCOUNT_TOKEN.read_text().strip() if ACCOUNT_TOKEN.is_file() else ""


class _Token:
    """What kfp takes for credentials: the token as it is at each request. A pod's own is renewed while a run lasts."""

    def __init__(self, reference: str) -> None:
        self._reference = reference

    def refresh_api_key_hook(self, configuration: Any) -> None:
        configuration.api_key["authorization"] = _token(self._reference)


def _trust(ca_file: str) -> ssl.SSLContext:
    """The certificates in ``ca_file``, or those of the system. Raises InputError for a file that holds none."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except FileNotFoundError as error:
        raise InputError("no such file of certificates", where=ca_file) from error
    except OSError as error:  # ssl.SSLError is one
        raise InputError(
            f"no certificates can be read from it: {error}", where=ca_file, hint="PEM is wanted"
        ) from error


def _where(operation: str, name: str) -> str:
    """A filter for lists, by the name that people see (filter.proto of the API v2beta1)."""
    import json

    return json.dumps({"predicates": [{"operation": operation, "key": "display_name", "stringValue": name}]})


def _schedule(told: Any) -> Schedule:
    kept = told.trigger.cron_schedule if told.trigger else None
    cron = str(kept.cron or "") if kept else ""
    return Schedule(str(told.recurring_run_id), str(told.display_name), cron, str(told.status) == "ENABLED")


def _run(told: Any) -> Run:
    details = (told.run_details.task_details if told.run_details else None) or []
    return Run(
        id=str(told.run_id),
        name=str(told.display_name),
        state=str(told.state or "PENDING"),
        experiment=str(told.experiment_id or ""),
        tasks=tuple(tasks_of(details)),
        error=str(told.error.message) if told.error else "",
    )


@contextmanager
def _asking(host: str) -> Iterator[None]:
    """Errors of kfp and of the network as ours. What kfp prints (links to the dashboard) is no part of our output."""
    import io

    import urllib3
    from kfp_server_api.exceptions import ApiException

    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except ApiException as error:
        hints = {
            401: "give a token: export KFP_TOKEN=$(oc whoami -t), then --token env:KFP_TOKEN",
            403: "the token's user may not do this in the namespace; --namespace NAME, or ask for the role `edit`",
            404: "look at the address and the id: ilab pipeline status --on kubeflow",
        }
        message = f"the pipeline server answered {error.status}: {_reason(error)}"
        hint, again = hints.get(error.status, ""), error.status >= 500
        raise ServiceError(message, where=host, hint=hint, retryable=again) from error
    except urllib3.exceptions.HTTPError as error:
        message = f"the pipeline server cannot be reached: {_short(getattr(error, 'reason', error))}"
        trust = isinstance(getattr(error, "reason", error), urllib3.exceptions.SSLError)
        hint = "--ca-file FILE, with the certificates (PEM) that vouch for it" if trust else f"try: curl -v {host}"
        raise ServiceError(message, where=host, hint=hint, retryable=not trust) from error
    except (ValueError, RuntimeError, TypeError) as error:  # kfp's own words for what it cannot use
        raise ServiceError(f"kfp could not do this: {_short(error)}", where=host) from error


def _reason(error: Any) -> str:
    import json

    try:
        return str(json.loads(error.body)["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return _short(error.reason or error)


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]

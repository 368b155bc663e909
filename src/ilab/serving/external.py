"""The backend ``external``: a server that runs already. It is asked what it serves; nothing is started or stopped."""

from __future__ import annotations

from ilab.errors import InputError, ServiceError
from ilab.serving.backend import Job
from ilab.serving.here import no_words
from ilab.serving.readiness import answering

PATIENCE = 10.0  # seconds


def check(job: Job) -> None:
    """Raises ``InputError`` where no server is named."""
    no_words(job)
    if not job.settings.url:
        raise InputError("no server is named", hint="add --set where.serve.url=http://HOST:PORT/v1")


def serve(job: Job) -> int:
    """Says what the server has. Raises ``ServiceError`` where it does not answer."""
    url = (job.settings.url or "").rstrip("/")
    names = answering(url, job.key, PATIENCE)
    if not names:
        raise ServiceError(
            "no server answers here with a list of models",
            where=url,
            hint=f"is it running, and does it want a key (--api-key)? for more: ilab endpoint check {url}",
        )
    job.say(f"{url} serves {', '.join(names)}")
    return 0

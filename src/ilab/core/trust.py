"""Certificates that a cluster trusts besides the system's: the ConfigMap ``ilab-ca-bundle``, mounted in every
task, and in the pods of its training job.

Whoever opens a connection in a task takes its trust from the environment: OpenSSL (and with it our own clients, aiohttp
and urllib), requests, boto3 and git have a variable each. All are pointed to one file with the system's certificates
and these. A ``ca_file`` of the settings is trusted besides; boto3 trusts ``where.web.ca_file`` alone.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ilab.core.kubeconfig import ascii_only
from ilab.errors import InputError

CONFIG_MAP = "ilab-ca-bundle"  # OpenShift fills one that is labelled config.openshift.io/inject-trusted-cabundle
BUNDLE = Path("/var/run/ilab/ca")  # where it is mounted
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE")
SYSTEM = ("/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")


def trust_bundle(folder: Path = BUNDLE) -> Path | None:
    """Have this process, and what it starts, trust the certificates in the files of ``folder`` too.

    Returns the file with all of them, None where there are none. Raises InputError for a file that holds none.
    """
    own = "".join(_certificates(folder))
    if not own:
        return None
    whole = Path(tempfile.mkdtemp(prefix="ilab-trust-"), "certificates.pem")
    whole.write_text(f"{_system()}\n{own}", encoding="utf-8")
    for name in VARIABLES:
        os.environ[name] = str(whole)
    return whole


def _certificates(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not path.is_file():  # Kubernetes keeps its own links there
            continue
        text = ascii_only(path.read_bytes())
        if not text.strip():  # OpenShift has not filled it yet, or has nothing to add
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
        except ssl.SSLError as error:
            where = f"ConfigMap {CONFIG_MAP}: {path.name}"
            raise InputError(
                f"no certificates can be read from it: {error.reason}", where=where, hint="PEM is wanted"
            ) from error
        yield f"{text.rstrip()}\n"


def _system() -> str:
    named = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *SYSTEM)
    for name in named:
        if name and Path(name).is_file():
            return Path(name).read_text(encoding="utf-8", errors="replace")
    return ""

"""The Secrets of a run: which parameters name them, where pods have them, and what stands for one without a name.

A Secret need not be there: every one is optional. But Kubeflow makes no pod for an empty name, and calls a volume as
the Secret in it; so a parameter that somebody emptied stands for a Secret that nobody has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilab.errors import InputError
from ilab.training.pods import TOKENS_SECRET

SECRETS = {  # parameter -> key of its Secret -> variable in the pod
    "sdg_teacher_secret": {"api_token": "ILAB_TEACHER_TOKEN", "model_name": "ILAB_TEACHER_MODEL",
                           "endpoint": "ILAB_TEACHER_ENDPOINT"},
    "eval_judge_secret": {"api_token": "ILAB_JUDGE_TOKEN", "model_name": "ILAB_JUDGE_MODEL",
                          "endpoint": "ILAB_JUDGE_ENDPOINT"},
    "sdg_repo_secret": {"username": "GIT_USERNAME", "password": "GIT_PASSWORD"},
    "output_oci_registry_secret": {},
}  # fmt: skip
TAXONOMY = Path("/var/run/ilab/taxonomy")  # where the Secret of a private taxonomy is mounted
LOGINS = Path("/var/run/ilab/registry")  # where the Secret with the registry's login is mounted
MOUNTED = {"sdg_repo_secret": TAXONOMY, "output_oci_registry_secret": LOGINS}
STORAGE = {
    "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
    "AWS_S3_ENDPOINT": "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION": "AWS_DEFAULT_REGION",
}  # a data connection of OpenShift AI has these keys
TOKENS = Path("/var/run/ilab/tokens")  # where the Secret of further tokens is: file:/var/run/ilab/tokens/KEY
LABEL = 63  # the longest name of a volume


def secret_names(values: Mapping[str, Any]) -> dict[str, str]:
    """The Secrets that pods are made with: where one has no name, that of a Secret that nobody has.

    Kubeflow makes no pod for an empty name, and calls a volume as its Secret. Raises InputError for two of one name.
    """
    names = {name: str(values[name]) or f"no-{name.replace('_', '-')}" for name in SECRETS}
    mounted: dict[str, str] = {TOKENS_SECRET: "the Secret of further tokens"}
    for name in MOUNTED:
        secret = names[name]
        if secret in mounted:
            hint = f"give one of them another name: oc create secret …, then -p {name}=NAME"
            raise InputError(f"{name} and {mounted[secret]} are one Secret, {secret}", where=name, hint=hint)
        if "." in secret or len(secret) > LABEL:
            hint = f"at most {LABEL} letters, digits and hyphens: Kubernetes calls a volume by it"
            raise InputError(f"no name of a Secret that can be mounted: {secret}", where=name, hint=hint)
        mounted[secret] = name
    return names

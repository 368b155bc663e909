"""``ilab pipeline schedule``: a CronJob as the API of ``batch/v1`` wants it, and what is wrong said before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ilab.cli.app import main, show_error
from ilab.errors import IlabError

KUBERNETES = """\
where:
  train:
    kubernetes:
      namespace: models
      image: quay.io/team/ilab:1
      volumes: {{work: {folder}}}
      secrets: {{TEACHER_KEY: teacher/key}}
      service_account: ilab
      cpus: 4
      memory: 16Gi
      gpus: 1
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "ilab.yaml").write_text(KUBERNETES.format(folder=tmp_path))
    return tmp_path / "project"


def schedule(project: Path, *arguments: str) -> Any:
    return CliRunner().invoke(
        main, ["-C", str(project), "--config", "DEFAULT", *arguments], standalone_mode=False, catch_exceptions=True
    )


def test_the_manifest(project: Path) -> None:
    done = schedule(project, "--json", "pipeline", "schedule", "--cron", "30 1 * * mon-fri", "--timezone", "Etc/UTC")
    told = json.loads(done.stdout)
    job = yaml.safe_load(told["manifest"])
    assert (job["apiVersion"], job["kind"], job["metadata"]["namespace"]) == ("batch/v1", "CronJob", "models")
    assert job["metadata"]["name"] == "ilab-nightly"
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("30 1 * * mon-fri", "Etc/UTC", "Forbid")
    (rule,) = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 5]}}
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "what a podFailurePolicy asks for"
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["command"] == ["ilab", "-C", str(project.resolve()), "pipeline", "nightly"]
    assert container["env"] == [
        {"name": "TEACHER_KEY", "valueFrom": {"secretKeyRef": {"name": "teacher", "key": "key"}}}
    ]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert told["next"].endswith("01:30+00:00")


def test_it_is_written_to_a_file_and_nothing_is_applied(project: Path) -> None:
    done = schedule(project, "pipeline", "schedule", "--promote", "--name", "mine", "--output", "nightly.yaml")
    assert done.exit_code == 0 and "kubectl apply -f nightly.yaml" in done.stderr
    job = yaml.safe_load((project / "nightly.yaml").read_text())
    assert job["metadata"]["name"] == "mine" and job["spec"]["schedule"] == "0 2 * * *"
    assert "timeZone" not in job["spec"]
    assert job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "--promote"


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["--cron", "0 25 * * *"], {}, "'25' is no hour"),
        (["--timezone", "Europe/Nowhere"], {}, "no time zone"),
        (["--name", "Nightly Build"], {}, "no name for a job"),
        ([], {"image": ""}, "no image to run"),
        ([], {"volumes": "{work: /elsewhere}"}, "lies on no volume"),
    ],
)
def test_what_is_wrong(
    project: Path, arguments: list[str], settings: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = yaml.safe_load((project / "ilab.yaml").read_text())
    for name, value in settings.items():
        given["where"]["train"]["kubernetes"][name] = yaml.safe_load(value) if value else None
    (project / "ilab.yaml").write_text(yaml.safe_dump(given))
    done = schedule(project, "pipeline", "schedule", *arguments)
    assert isinstance(done.exception, IlabError)
    show_error(done.exception)
    assert message in capsys.readouterr().err and done.exception.exit_code == 2

"""The Containerfile, as far as it can be judged without an engine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass

import pytest
from deployment import DEPLOY, ROOT

import ilab


@dataclass(frozen=True)
class Line:
    stage: int
    word: str
    rest: str


def parsed(text: str) -> list[Line]:
    """Instructions with their continued lines joined, and the number of their stage (-1: before the first)."""
    lines, stage = [], -1
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    for line in filter(str.strip, joined.splitlines()):
        word, _, rest = line.strip().partition(" ")
        stage += word == "FROM"
        lines.append(Line(stage, word, rest.strip()))
    return lines


LINES = parsed((DEPLOY / "Containerfile").read_text())
LAST = max(line.stage for line in LINES)


def test_bases_are_pinned() -> None:
    defaults = dict(line.rest.split("=", 1) for line in LINES if line.word == "ARG" and line.stage < 0)
    for line in (line for line in LINES if line.word == "FROM"):
        image = line.rest.split(" AS ")[0]
        image = re.sub(r"\$\{(\w+)\}", lambda found: defaults[found[1]], image)
        tag = image.rpartition(":")[2]
        assert re.fullmatch(r"\d+(\.\d+)+(-\d+)?|.*@sha256:[0-9a-f]{64}", tag), image


def test_the_image_runs_as_nobody_special() -> None:
    last = [line for line in LINES if line.stage == LAST]
    users = [line.rest for line in last if line.word == "USER"]
    assert users and users[-1].isdecimal() and int(users[-1]) > 0
    assert last.index(Line(LAST, "USER", users[-1])) > max(n for n, line in enumerate(last) if line.word == "RUN")
    assert any("chmod -R g=u /home/ilab" in line.rest for line in last)
    assert any(line.word == "ENV" and "HOME=/home/ilab" in line.rest for line in last)


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    wanted = {line.strip("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in (line for line in LINES if line.word == "COPY"):
        *sources, _target = [word for word in line.rest.split() if not word.startswith("--")]
        if "--from=" in line.rest:
            assert sources == ["/opt/ilab"]
            continue
        for source in sources:
            assert (ROOT / source).exists() and source in wanted, source


def test_nothing_of_the_build_is_left() -> None:
    last = " ".join(line.rest for line in LINES if line.stage == LAST and line.word == "RUN")
    assert not re.search(r"\bpip\b|\bgcc\b|-devel\b|python3\.11-pip", last)
    assert "microdnf clean all" in last and "microdnf remove -y shadow-utils" in last
    first = " ".join(line.rest for line in LINES if line.stage == 0 and line.word == "RUN")
    assert "--constraint constraints.txt" in first and "--without-pip" in first


@pytest.mark.parametrize("line", [line for line in LINES if line.word == "RUN"], ids=lambda line: line.rest[:30])
def test_every_command_is_a_shells(line: Line) -> None:
    done = subprocess.run(["bash", "-n"], input=line.rest, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not re.search(r"curl|wget|\bADD\b|--trusted-host", line.rest)


def test_labels_entrypoint_and_extras_are_ours() -> None:
    whole = {line.word: line.rest for line in LINES if line.stage == LAST}
    assert whole["ENTRYPOINT"] == '["ilab"]'
    labels = next(line.rest for line in LINES if line.word == "LABEL")
    assert f'org.opencontainers.image.version="{ilab.__version__}"' in labels
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extras = next(line.rest for line in LINES if line.word == "ARG" and line.rest.startswith("EXTRAS="))
    there = set(extras.partition("=")[2].split(","))
    assert there <= set(known)
    # What parameters of the pipeline and settings of the cluster switch on: output_gguf, where.train.report_to,
    # output_model_registry_api_url, where.package.sign_key.
    assert {"train", "lora", "s3", "kubeflow", "gguf", "mlflow", "model-registry", "sign"} <= there


def test_the_makefile_builds_it() -> None:
    done = subprocess.run(
        ["make", "-n", "image", "deploy-prod", "NAMESPACE=lab"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "build --file deploy/Containerfile --tag quay.io/your-organization/ilab" in done.stdout
    assert "apply --namespace lab --kustomize deploy/overlays/prod" in done.stdout

"""Two merges, night after night, on a cluster: kfp runs on this machine what was submitted, beside a store in a bucket."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from on_kubeflow import IMAGE
from pipeline_server import PipelineServer, serving
from pods_apart import ALONE, elsewhere

from ilab.cli.app import main
from ilab.kubeflow.definition import Target

STATION = "knowledge/history/places/dunmarrow_station"
SMALL = {
    "output_model_name": "small",
    "sdg_scale_factor": 4,
    "mix_question_variants": 1,
    "train_epochs_phase_1": 1,
    "train_epochs_phase_2": 1,
    "eval_num_samples": 6,
    "eval_quality_threshold": 0,
    "gate_on_inconclusive": "publish",
    "gate_margin": 0.9,
    "train_gpu_per_worker": 0,
}
PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
from kfp import components, local
{alone}
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[3])
components.load_component_from_file(sys.argv[1])(**json.loads(sys.argv[2]))
"""


class Runner:
    """Plays the cluster: every run that is submitted is run by kfp here, in processes that find ``own``, their
    volume, empty."""

    def __init__(self, server: PipelineServer, folder: Path, own: Path) -> None:
        self.server, self.folder, self.own = server, folder, own
        self.said = ""

    def begin(self, sent: dict[str, Any]) -> str:
        threading.Thread(target=self._run, args=(sent, len(self.server.runs)), daemon=True).start()
        return "RUNNING"

    def _run(self, sent: dict[str, Any], number: int) -> None:
        folder = self.folder / f"run-{number}"
        folder.mkdir(parents=True)
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(sent["pipeline_spec"]["pipeline_spec"], sort_keys=False))
        given = json.dumps(sent["runtime_config"]["parameters"])
        program = PROGRAM.format(alone=f"own, root = {str(self.own)!r}, {str(folder)!r}\n{ALONE}")
        command = [sys.executable, "-c", program, str(folder / "pipeline.yaml"), given, str(folder / "outputs")]
        home = {"HOME": str(folder / "home"), "XDG_CACHE_HOME": "", "XDG_DATA_HOME": ""}
        environment = {**os.environ, **home, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        self.said = done.stdout[-4000:] + done.stderr[-4000:]
        self.server.end("SUCCEEDED" if done.returncode == 0 else "FAILED")


@pytest.mark.long
def test_two_merges_on_a_cluster_whose_pods_share_nothing(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release before, what it was taught and the base model are fetched by every pod that takes them."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "KUBECONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    own = tmp_path / "own"
    monkeypatch.setattr("ilab.kubeflow.definition.Target", functools.partial(Target, at_exit=False, root=str(own)))
    monkeypatch.setattr("ilab.kubeflow.client.POLL", 0.5)
    given = elsewhere(tmp_path, bucket)
    settings = {"pipeline": "quickstart", "parameters": {**SMALL, **given}, "where": {"store": "s3://runs/here"}}
    (tmp_path / "ilab.yaml").write_text(yaml.safe_dump(settings))
    tree, later = tmp_path / "tree", tmp_path / "later"

    def commit() -> None:
        identity = ("-c", "user.name=A Person", "-c", "user.email=person@example.org")
        for words in (("add", "--all"), ("commit", "--quiet", "-m", "changed")):
            subprocess.run(["git", "-C", str(tree), *identity, *words], check=True)

    shutil.move(tree / STATION, later)
    commit()
    with serving() as server:
        runner = Runner(server, tmp_path / "runs", own)
        server.work = runner.begin

        def ilab(*words: str) -> Any:
            done = CliRunner().invoke(main, ["-C", str(tmp_path), "--config", "DEFAULT", "--json", *words])
            assert done.exit_code == 0, (done.output, done.exception, runner.said)
            return json.loads(done.stdout)

        night = ("pipeline", "nightly", "--on", "kubeflow", "--host", server.url, "--image", IMAGE)
        first = ilab(*night)
        assert (first["how"], first["version"]) == ("full", "0.1.0")
        assert first["channels"] == {"nightly": "0.1.0"}
        ilab("registry", "alias", "small", "0.1.0", "stable")
        again = ilab(*night)
        assert (again["how"], again["built"], len(server.runs)) == ("nothing", False, 1)
        shutil.move(later, tree / STATION)
        commit()
        second = ilab(*night)
        assert (second["how"], second["version"], second["leaves"]["added"]) == ("increment", "0.2.0", [STATION])
        assert second["channels"] == {"nightly": "0.2.0", "stable": "0.1.0"}
        repeated = ilab(*night)
        assert (repeated["how"], repeated["version"], len(server.runs)) == ("nothing", "0.2.0", 2), "not built again"
    last = max((tmp_path / "runs").iterdir(), key=lambda folder: folder.name)
    pages = list((last / "outputs").glob("*/results/changelog"))
    assert [STATION in page.read_text().replace("\\", "") for page in pages] == [True]
    assert json.loads((pages[0].parent / "evaluation_results" / "changelog.json").read_text())["how"] == "increment"
    kept = [one.key for one in bucket.objects.all() if one.key.endswith("/CHANGELOG.md")]
    assert any(key.startswith("here/runs/") for key in kept), "beside its report"

"""The endpoint and the file, over real sockets and with a real Prometheus."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ilab.cli.app import main
from ilab.config_where import MonitoringWhere
from ilab.core.events import Event
from ilab.errors import ServiceError, SetupError, Stopped
from ilab.monitoring import exporters, monitored

STARTED = Event("started", "generate", {"type": "generate", "key": "k"}, 100.0)


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


def port_of(folder: Path) -> int:
    return int((folder / exporters.PORT_FILE).read_text())


def test_the_endpoint_shows_the_newest_figures_and_goes_with_the_run(tmp_path: Path) -> None:
    with monitored(MonitoringWhere(port=0), tmp_path) as sink:
        port = port_of(tmp_path)
        assert "ilab_step_state" not in get(port)
        sink(STARTED)
        text = get(port)
        assert f'ilab_step_state{{run="{tmp_path.name}",step="generate",state="running"}} 1' in text
        assert "ilab_run_free_bytes" in text
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(port, "/etc/passwd")
    with pytest.raises(urllib.error.URLError):
        get(port)


def test_the_last_figures_wait_for_whoever_collects_them(tmp_path: Path) -> None:
    def work() -> None:
        with monitored(MonitoringWhere(port=0, linger=120), tmp_path) as sink:
            sink(STARTED)
            began.set()
            goes_on.wait(30)

    began, goes_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert began.wait(30)
    port = port_of(tmp_path)
    assert 'state="running"} 1' in get(port)
    goes_on.set()
    shown = ""
    while f'ilab_run_state{{run="{tmp_path.name}",state="done"}} 1' not in shown:
        assert thread.is_alive(), "it was gone before its end was told"
        shown = get(port)
    thread.join(60)
    assert not thread.is_alive(), "it waits for nobody any more"


def test_nobody_waits_where_nobody_collects(tmp_path: Path) -> None:
    monitor = exporters.Monitor(tmp_path, 60)
    monitor._began -= 200
    thread = threading.Thread(target=monitor.linger, args=(120,), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_a_reader_that_says_nothing_or_goes_away_holds_nobody_up(tmp_path: Path) -> None:
    with monitored(MonitoringWhere(port=0), tmp_path):
        port = port_of(tmp_path)
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as rude:
            rude.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            rude.close()
            assert "ilab_run_state" in get(port)


def test_nothing_is_opened_where_nothing_is_asked(tmp_path: Path) -> None:
    before = threading.active_count()
    with monitored(MonitoringWhere(), tmp_path) as sink:
        sink(STARTED)
        assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def test_a_taken_port_is_told_before_anything_runs(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=str(port)) as caught, monitored(MonitoringWhere(port=port), tmp_path):
            raise AssertionError("it ran")
    assert "where.monitoring.port" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "done"), (ServiceError("gone"), "failed"), (Stopped("enough"), "stopped"), (ValueError("bug"), "failed")],
)
def test_the_file_tells_how_it_ended(tmp_path: Path, error: Exception | None, state: str) -> None:
    file = tmp_path / "collect" / "ilab.prom"
    raised = pytest.raises(type(error)) if error is not None else nullcontext()
    with raised, monitored(MonitoringWhere(textfile=str(file)), tmp_path) as sink:
        assert 'state="running"} 1' in file.read_text()
        sink(STARTED)
        if error is not None:
            raise error
    run = tmp_path.name
    text = file.read_text()
    assert f'ilab_run_state{{run="{run}",state="{state}"}} 1' in text
    assert f'ilab_step_state{{run="{run}",step="generate",state="{state}"}} 1' in text
    assert [path.name for path in file.parent.iterdir()] == ["ilab.prom"]


def test_the_file_is_written_again_while_the_run_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "EVERY", 0.02)
    file = tmp_path / "ilab.prom"
    with monitored(MonitoringWhere(textfile=str(file), stuck_minutes=1), tmp_path) as sink:
        sink(STARTED)  # of the year 1970, and nothing since
        end = time.monotonic() + 20
        while 'ilab_step_stuck{run="' not in (text := file.read_text()) and time.monotonic() < end:
            time.sleep(0.01)
    assert f'ilab_step_stuck{{run="{tmp_path.name}",step="generate"}} 1' in text


def test_a_file_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    where = MonitoringWhere(textfile=str(tmp_path / "file" / "x.prom"))
    with pytest.raises(SetupError) as caught, monitored(where, tmp_path):
        raise AssertionError("it ran")
    assert "where.monitoring.textfile" in caught.value.hint


def test_a_command_that_runs_steps_is_monitored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taxonomy").mkdir()
    pipeline = "name: small\nsteps:\n  taxonomy: {step: taxonomy, tree: $sdg_repo_url}\n"
    (tmp_path / "small.yaml").write_text(pipeline)
    leaf = tmp_path / "taxonomy/compositional_skills/colours"
    leaf.mkdir(parents=True)
    seeds = [{"question": f"Name colour {n}.", "answer": f"Colour {n} is called shade-{n}."} for n in range(5)]
    (leaf / "qna.yaml").write_text(
        json.dumps({"version": 2, "created_by": "me", "task_description": "Name colours.", "seed_examples": seeds})
    )
    monkeypatch.chdir(tmp_path)
    sets = ["--set", f"where.monitoring.textfile={tmp_path / 'ilab.prom'}", "--store", str(tmp_path / "store")]
    asked = ["run", "--pipeline", "small.yaml", "-p", "sdg_repo_url=taxonomy", "--metrics-port", "0"]
    done = CliRunner().invoke(main, [*sets, *asked])
    assert done.exception is None or done.exit_code == 0, (done.output, done.exception)
    text = (tmp_path / "ilab.prom").read_text()
    assert 'step="taxonomy",state="done"} 1' in text and 'state="done"} 1' in text
    assert len(list((tmp_path / "store/runs").glob("*/metrics-port"))) == 1


def _query(port: int, query: str) -> list[Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=5) as answer:
            return list(json.load(answer)["data"]["result"])
    except (urllib.error.URLError, OSError):
        return []


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="Debian's build")
def test_prometheus_scrapes_it(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = free.getsockname()[1]
    with monitored(MonitoringWhere(port=0), tmp_path) as sink:
        sink(STARTED)
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [
                {"job_name": "ilab", "static_configs": [{"targets": [f"127.0.0.1:{port_of(tmp_path)}"]}]}
            ],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        data = ["--config.file", "prometheus.yml", "--storage.tsdb.path", "data", "--log.level", "error"]
        line = ["prometheus", *data, "--web.listen-address", f"127.0.0.1:{listen}"]
        process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found: list[Any] = []
            end = time.monotonic() + 60
            while not found and time.monotonic() < end:
                found = _query(listen, "ilab_step_state%7Bstate=%22running%22%7D")
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait(30)
    assert [(one["metric"]["step"], one["value"][1]) for one in found] == [("generate", "1")]

"""Which teacher a command takes: a server that is named or found, a downloaded model, or none."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ilab
from ilab.actions import prepare
from ilab.config import Loaded, load, user_file
from ilab.config_where import UNSERVED
from ilab.errors import InputError
from ilab.serving.temporary import answering, free_port
from ilab.teacher_at_hand import Teacher, find_teacher, reached, served, teacher_of_build
from ilab.testing.teacher import Teacher as Server
from ilab.testing.teacher import serve
from ilab.transfer.shelf import models_home

LEAF = (
    Path(__file__).resolve().parents[2] / "examples/quickstart/taxonomy/compositional_skills/scheduling/calendar_line"
)
QNA = """\
task_description: Teach what the Tavrin kiln is
created_by: somebody
seed_examples:
  - question: What does a Tavrin kiln burn?
    answer: It burns dried reed.
  - question: How hot does a Tavrin kiln get?
    answer: It reaches 940 degrees.
  - question: Who built the first Tavrin kiln?
    answer: Mira Tavrin built it in 1911.
  - question: Where does the first kiln stand?
    answer: It stands in the village of Orlo.
  - question: How long does a firing take?
    answer: A firing takes nineteen hours.
"""
PROJECT = "pipeline: quickstart\nparameters: {sdg_repo_url: qna.yaml}\n"


def listens(port: int | str, text: str = "") -> None:
    """Write the user's settings: where a server of ours would listen, and ``text``."""
    user_file().parent.mkdir(parents=True, exist_ok=True)
    user_file().write_text(f"where: {{serve: {{port: {port}}}}}\n{text}")


def port_of(running: Server) -> str:
    return running.url.rsplit(":", 1)[1].removesuffix("/v1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no project, with an old leaf; nobody listens where a server of ours would."""
    listens(free_port())
    monkeypatch.setenv("PYTHONPATH", str(Path(ilab.__file__).parents[1]))
    here = tmp_path / "kiln"
    here.mkdir()
    (here / "qna.yaml").write_text(QNA)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def standing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server where one of ours would be."""
    with serve(models=("merlinite-7b-lab",)) as running:
        listens(port_of(running))
        yield running


@pytest.fixture
def downloaded(tiny_model: Path) -> Path:
    """A model in the models folder."""
    place = models_home() / "acme" / "tiny"
    shutil.copytree(tiny_model, place)
    return place


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program itself, in a process of its own."""
    command = [sys.executable, "-m", "ilab", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def found(here: Path, name: str = "", **more: Any) -> Teacher:
    return find_teacher(load(here), name, here=here, **more)


def url(teacher: Teacher) -> str:
    endpoint = teacher.loaded.config.where.teacher
    return endpoint.url if endpoint else ""


# -- which teacher ---------------------------------------------------------------------------------------------------


def test_nobody_is_there_and_nobody_was_asked_for(folder: Path) -> None:
    teacher = found(folder)
    assert (teacher.name, teacher.model, url(teacher)) == ("", None, "")


def test_a_server_that_runs_is_taken_and_told(folder: Path, standing: Server, downloaded: Path) -> None:
    teacher = found(folder)
    assert (teacher.name, teacher.model, url(teacher)) == ("merlinite-7b-lab", None, standing.url)
    assert teacher.notes == (f"the server at {standing.url} plays the teacher: it serves merlinite-7b-lab",)


@pytest.mark.parametrize("name", ["merlinite-7b-lab", "models/merlinite-7b-lab.gguf", "instructlab/Merlinite-7b-lab"])
def test_a_server_serves_a_model_by_the_end_of_its_name(folder: Path, standing: Server, name: str) -> None:
    assert found(folder, name).name == "merlinite-7b-lab"


def test_a_server_of_another_model_is_not_asked(folder: Path, standing: Server, downloaded: Path) -> None:
    with pytest.raises(InputError, match="'acme/large' is not on this machine, and no server has it") as caught:
        found(folder, "acme/large")
    assert "ilab model download --repository acme/large" in caught.value.hint
    assert f"where.teacher.url={standing.url} --set where.teacher.model=merlinite-7b-lab" in caught.value.hint
    teacher = found(folder, "acme/tiny")
    assert (teacher.name, teacher.model, url(teacher)) == ("acme/tiny", downloaded, UNSERVED)
    assert teacher.notes == (f"the server at {standing.url} serves merlinite-7b-lab, not acme/tiny: it is not asked",)


def test_a_model_by_path_and_by_the_name_that_the_configuration_gives_it(folder: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, folder / "models" / "own")
    own = folder / "models" / "own"
    for name in ("models/own", str(own), "own"):
        assert (found(folder, name).model, found(folder, name).name) == (own, "own")
    listens(free_port(), f"models: {{teacher: mine, named: {{mine: {{path: {own}}}}}}}\n")
    assert found(folder).model == own


def test_the_recommended_teacher_is_taken_once_it_is_downloaded(folder: Path, tiny_model: Path) -> None:
    listens(free_port(), "profile: gpu-24\n")
    recommended = load(folder).profile.models["teacher"]  # type: ignore[union-attr]
    with pytest.raises(InputError) as caught:
        found(folder, needed="the flow 'simple' asks a teacher")
    assert f"ilab model download --repository {recommended.repository}" in caught.value.hint
    assert recommended.licence in caught.value.hint
    shutil.copytree(tiny_model, models_home() / recommended.repository)
    assert found(folder).name == recommended.repository


def test_in_a_project_its_own_file_and_the_command_decide(folder: Path, standing: Server, downloaded: Path) -> None:
    (folder / "ilab.yaml").write_text(PROJECT)
    listens(port_of(standing), "models: {teacher: acme/tiny}\n")
    assert found(folder).name == ""
    assert found(folder, "merlinite-7b-lab").name == "merlinite-7b-lab"
    assert found(folder, needed="the flow 'simple' asks a teacher").name == "acme/tiny"
    (folder / "ilab.yaml").write_text(f"{PROJECT}models: {{teacher: merlinite-7b-lab}}\n")
    assert found(folder).name == "merlinite-7b-lab"


def test_a_server_that_is_named_tells_its_only_model(folder: Path) -> None:
    with serve(models=("one",)) as single, serve(models=("one", "two")) as several:
        assert found_at(folder, single).name == "one"
        with pytest.raises(InputError, match="name is missing") as caught:
            found_at(folder, several)
        assert "it serves: one, two" in caught.value.hint
        assert not single.calls


def found_at(here: Path, running: Server) -> Teacher:
    return find_teacher(load(here, flags={"where.teacher.url": running.url}), "", here=here)


# -- builds ----------------------------------------------------------------------------------------------------------


def key(loaded: Loaded, parameters: dict[str, Any], here: Path) -> str:
    teacher, values = teacher_of_build(
        loaded, {"sdg_repo_url": "qna.yaml", "sdg_base_model": "tiny", **parameters}, here
    )
    build = prepare(teacher.loaded, values)
    return build.plan.named("generate").key


def test_where_the_teacher_runs_is_part_of_no_key(
    folder: Path, downloaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"sdg_pipeline": "simple", "sdg_teacher_model": "acme/tiny"}
    here = key(load(folder), asked, folder)
    with serve(models=("acme/tiny",)) as running:
        assert key(load(folder, flags={"where.teacher.url": running.url}), asked, folder) == here
        listens(port_of(running))
        assert key(load(folder), asked, folder) == here
        assert key(load(folder), {**asked, "sdg_max_tokens": 100}, folder) != here
        assert key(load(folder), {**asked, "sdg_teacher_model": str(downloaded)}, folder) == here


def test_a_flow_by_rule_asks_for_no_teacher(folder: Path, standing: Server) -> None:
    teacher, values = teacher_of_build(load(folder), {"sdg_pipeline": "extractive"}, folder)
    assert teacher.name == "" and values == {"sdg_pipeline": "extractive"}
    teacher, values = teacher_of_build(load(folder), {"sdg_pipeline": "extractive", "eval_items": "teacher"}, folder)
    assert values["sdg_teacher_model"] == "merlinite-7b-lab"


# -- served for the time of a command --------------------------------------------------------------------------------


def test_a_downloaded_teacher_is_served_when_it_is_asked_and_no_longer(folder: Path, downloaded: Path) -> None:
    told: list[str] = []
    teacher = found(folder)
    with served(found(folder, "acme/tiny"), told.append, folder / "log") as address:
        assert told == []
        teacher = found(folder, "acme/tiny")
        endpoint = reached(teacher, address).config.where.teacher
        assert endpoint is not None
        assert answering(endpoint.url) == ["acme/tiny"] and address() == endpoint.url
    assert answering(endpoint.url) == []
    assert told[0].startswith("serving acme/tiny as the teacher") and told[-1] == "the teacher is stopped"


def test_a_plan_and_a_forecast_serve_nothing(folder: Path, downloaded: Path) -> None:
    told = run("data", "generate", "--taxonomy-path", "qna.yaml", "--model", "acme/tiny", "--dry-run")
    assert told.returncode == 0, told.stderr
    assert re.search(r"generate\s+run\s+never made\s+[1-9]\d* calls", told.stdout)
    assert "serving" not in told.stderr


def test_nothing_is_served_for_what_is_there_already(
    folder: Path, standing: Server, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (
        "data",
        "generate",
        "--taxonomy-path",
        "qna.yaml",
        "--model",
        "merlinite-7b-lab",
        "--num-instructions",
        "3",
    )
    assert run(*asked).returncode == 0
    calls = len(standing.calls)
    shutil.copytree(tiny_model, models_home() / "merlinite-7b-lab")
    listens(free_port())
    again = run(*asked)
    assert again.returncode == 0, again.stderr
    assert "serving" not in again.stderr and len(standing.calls) == calls


def served_at(process: subprocess.Popen[bytes], said: Path) -> str:
    """The address of the teacher's server, once it answers and its log was shown."""
    for _ in range(1200):
        assert process.poll() is None, said.read_text()
        for log in Path(os.environ["XDG_DATA_HOME"]).rglob("logs/teacher/*.log"):
            match = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
            if match and answering(f"{match[0]}/v1") and "\nteacher: " in said.read_text():
                return f"{match[0]}/v1"
        time.sleep(0.1)
    raise AssertionError(said.read_text())


def test_a_killed_command_leaves_no_server(folder: Path, downloaded: Path) -> None:
    """kill -9 in the middle of the teacher's answers."""
    command = [sys.executable, "-m", "ilab", "generate", "--taxonomy-path", "qna.yaml", "--model", "acme/tiny"]
    command.append("--enable-serving-output")
    environment = {**os.environ, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    said = folder / "said"
    with said.open("wb") as sink, subprocess.Popen(command, stderr=sink, stdout=sink, env=environment) as process:
        try:
            url = served_at(process, said)
        finally:
            process.send_signal(signal.SIGKILL)
    for _ in range(300):
        if not answering(url):
            return
        time.sleep(0.1)
    pytest.fail("the server is still there")


# -- ilab generate, as the old tutorial has it -------------------------------------------------------------------------


def test_the_old_command_in_any_folder(folder: Path, standing: Server) -> None:
    done = run("generate", "--taxonomy-path", "qna.yaml", "--num-instructions", "20")
    assert done.returncode == 0, done.stderr
    assert "plays the teacher: it serves merlinite-7b-lab" in done.stderr
    (train,) = (folder / "generated").glob("train_merlinite-7b-lab_*.jsonl")
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    assert len(rows) == 20 and set(rows[0]) == {"system", "user", "assistant"}
    stamp = train.stem.removeprefix("train_")
    names = {f"test_{stamp}.jsonl", f"train_{stamp}.jsonl", f"generated_{stamp}.json", f"discarded_{stamp}.log"}
    assert {file.name for file in (folder / "generated").iterdir()} == names
    assert "ilab train --input-dir" in done.stdout
    assert len((folder / "generated" / f"test_{stamp}.jsonl").read_text().splitlines()) == 5


def test_without_a_teacher_rules_write_the_same_files_and_say_so(folder: Path) -> None:
    shutil.copytree(LEAF, folder / "leaf")
    done = run("generate", "--taxonomy-path", "leaf/qna.yaml", "--num-instructions", "5")
    assert done.returncode == 0, done.stderr
    assert "samples are made by rule" in done.stderr and "ilab model download" in done.stderr
    (train,) = (folder / "generated").glob("train_extractive_*.jsonl")
    assert len(train.read_text().splitlines()) == 5


def test_the_new_spelling_writes_to_the_data_home_outside_of_projects(folder: Path, standing: Server) -> None:
    done = run("data", "generate", "--taxonomy-path", "qna.yaml", "--num-instructions", "4")
    assert done.returncode == 0, done.stderr
    datasets = Path(os.environ["XDG_DATA_HOME"]) / "instructlab" / "datasets"
    (made,) = datasets.iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}", made.name)
    assert not (folder / "generated").exists()
    listed = run("data", "list")
    assert "4 samples of merlinite-7b-lab" in listed.stdout
    (folder / "ilab.yaml").write_text(PROJECT)
    assert run("data", "generate", "--pipeline", "simple", "--preview", "1").returncode == 0
    assert [path.name for path in datasets.iterdir()] == [made.name]


def test_a_teacher_by_its_id_and_the_system_message_of_a_student(folder: Path, standing: Server) -> None:
    listens(
        port_of(standing),
        "models: {named: {mine: {path: merlinite-7b-lab}, small: {path: tiny, system_prompt: You know kilns.}}}\n",
    )
    done = run(
        "generate", "--taxonomy-path", "qna.yaml", "--num-instructions", "2", "--max-num-tokens", "512",
        "--teacher-model-id", "mine", "--student-model-id", "small", "--output-dir", "out", "--legacy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (train,) = (folder / "out").glob("train_*.jsonl")
    assert json.loads(train.read_text().splitlines()[0])["system"] == "You know kilns."
    assert {call["max_tokens"] for call in standing.calls if call.get("max_tokens", 0) > 100} == {512}
    unknown = run("generate", "--teacher-model-id", "nobody")
    assert unknown.returncode == 2 and "no model has the id 'nobody'" in unknown.stderr

"""Profile, the user's file, the project's, --set, flags: what lies over what, and what does not mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from ilab.config import check_source, load, user_file
from ilab.config_source import parse_source, read_source
from ilab.errors import InputError

USER = """\
profile: gpu-24
parameters:
  sdg_repo_url: /somewhere/taxonomy
  train_seed: 3
where:
  threads: 3
  store: /data/store
  teacher:
    url: http://127.0.0.1:1/v1
    api_key: env:MINE
    model: big
"""


@pytest.fixture
def user() -> Path:
    path = user_file()
    path.parent.mkdir(parents=True)
    path.write_text(USER)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "ilab.yaml").write_text("where:\n  threads: 4\n  jobs: 5\n")
    return tmp_path / "p"


def test_defaults_profile_user_project_set_flag(user: Path, project: Path) -> None:
    loaded = load(project, sets=["where.jobs=6"], flags={"where.device": "cpu"})
    where = loaded.config.where
    told = {name: loaded.origins.get(f"where.{name}", "default") for name in ("web.timeout", "store", "threads")}
    assert told == {"web.timeout": "default", "store": "config.yaml:7", "threads": "ilab.yaml:2"}
    assert loaded.origins["where.evaluate.batch"] == "profile gpu-24"
    assert (loaded.origins["where.jobs"], loaded.origins["where.device"]) == ("--set", "flag")
    assert (where.threads, where.jobs, where.device, where.store) == (4, 6, "cpu", "/data/store")
    assert loaded.files == (user, project / "ilab.yaml")


def test_a_project_is_the_same_build_on_every_machine(user: Path, project: Path) -> None:
    assert "train_seed" not in load(project).config.parameters
    outside = load(project.parent)
    assert outside.config.parameters["train_seed"] == 3
    assert outside.parameters() == {
        "config.yaml": {"sdg_repo_url": "/somewhere/taxonomy", "train_seed": 3, "sdg_teacher_model": "big"}
    }
    assert load(project.parent, user=None).config.parameters == {}


def test_the_name_at_the_server_is_the_teachers_unless_one_is_given(user: Path, project: Path) -> None:
    assert load(project).config.parameters == {"sdg_teacher_model": "big"}
    assert load(project).parameters() == {"config.yaml": {"sdg_teacher_model": "big"}}
    assert load(project, sets=["parameters.sdg_teacher_model=other"]).config.parameters["sdg_teacher_model"] == "other"
    given = load(project, sets=["where.judge.url=http://127.0.0.1:2/v1", "where.judge.model=stern"])
    assert given.config.parameters["eval_judge_model"] == "stern"
    assert given.parameters()["--set"] == {"eval_judge_model": "stern"}


def test_a_key_of_one_file_never_goes_to_the_address_of_another(user: Path, project: Path) -> None:
    (project / "ilab.yaml").write_text("where: {teacher: {url: 'http://evil.example/v1'}}\n")
    loaded = load(project)
    assert loaded.config.where.teacher is not None
    assert (loaded.config.where.teacher.api_key, loaded.config.where.teacher.model) == ("", "")
    assert "where.teacher.api_key" not in loaded.origins
    (project / "ilab.yaml").write_text("where: {teacher: {timeout: 7}}\n")
    kept = load(project).config.where.teacher
    assert kept is not None and (kept.api_key, kept.timeout) == ("env:MINE", 7)


def test_another_file_in_place_of_the_users(user: Path, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("where: {threads: 9, jobs: 9}\n")
    loaded = load(tmp_path, user=other)
    assert (loaded.config.where.jobs, loaded.profile, loaded.files) == (9, None, (other,))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(tmp_path, user=tmp_path / "nowhere.yaml")


def test_mistakes_of_the_users_file_have_their_line(user: Path, project: Path) -> None:
    user.write_text(USER.replace("  threads: 3", "  thread: 3"))
    with pytest.raises(InputError, match=r"unknown setting 'where.thread'") as caught:
        load(project)
    assert caught.value.where == f"{user}:6"
    user.write_text(USER.replace("/data/store", "store"))
    with pytest.raises(InputError, match="relative path") as caught:
        load(project)
    assert caught.value.where == f"{user}:7"


def test_a_group_without_what_it_needs_names_the_group(project: Path) -> None:
    (project / "ilab.yaml").write_text("where:\n  teacher:\n    timeout: 3\n")
    with pytest.raises(InputError, match=r"where.teacher.url") as caught:
        load(project)
    assert caught.value.where == f"{project / 'ilab.yaml'}:2"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("where: {jobs: 1}\npipeline: x\nwhere: {threads: 2}\n", 3, "given twice, first in line 1"),
        ("where:\n  jobs: 1\n  jobs: 2\n", 3, "where.jobs is given twice"),
        ("a: &a {b: *a}\n", 1, "nested too deeply"),
        ("where: {a: 2020-99-99}\n", None, "cannot be read"),
    ],
)
def test_files_that_say_two_things(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_source(path)
    assert caught.value.where == (f"{path}:{line}" if line else str(path))


def test_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    text = "where:\n  jobs: 0\n  devise: cpu\nparameters:\n  train_seed: x\n  train_sed: 1\n  sdg_scale_factor: 0\n"
    wrong = check_source(parse_source(text, Path("f.yaml")))
    assert [(error.where, error.message.split(":")[0]) for error in wrong] == [
        ("f.yaml:2", "where.jobs"),
        ("f.yaml:3", "unknown setting 'where.devise'"),
        ("f.yaml:5", "train_seed 'x' is not a number"),
        ("f.yaml:6", "unknown parameter 'train_sed'"),
        ("f.yaml:7", "sdg_scale_factor 0 is out of range"),
    ]

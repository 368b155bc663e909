"""One merge for files, --set and flags; every value knows its origin; nothing unknown passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ilab.config import PROJECT_FILE, flatten, load
from ilab.errors import InputError

FILE = """\
pipeline: quickstart
parameters: {train_seed: 7}
where:
  threads: 2
  teacher:
    url: http://127.0.0.1:1/v1
    timeout: 5
  documents:
    mirrors:
      https://example.org/pages.git: ../pages
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / PROJECT_FILE).write_text(FILE)
    return tmp_path


def test_defaults_then_file_then_set_then_flag(folder: Path) -> None:
    loaded = load(folder, sets=["where.jobs=5", "where.threads=3"], flags={"where.threads": 4, "where.device": None})
    where = loaded.config.where
    assert (where.device, where.jobs, where.threads) == ("auto", 5, 4)
    assert where.teacher is not None and where.teacher.timeout == 5.0
    assert loaded.origins["where.threads"] == "flag"
    assert loaded.origins["where.jobs"] == "--set"
    assert loaded.origins["where.teacher.timeout"] == "ilab.yaml:7"
    assert loaded.origins["parameters.train_seed"] == "ilab.yaml:2"
    assert "where.device" not in loaded.origins, "a flag that was not given is no origin"


def test_set_reaches_into_groups_that_the_file_has_not(tmp_path: Path) -> None:
    loaded = load(tmp_path, sets=["where.teacher.url=http://127.0.0.1:2/v1", "parameters.train_seed=3"])
    assert loaded.config.where.teacher is not None
    assert loaded.config.where.teacher.url == "http://127.0.0.1:2/v1"
    assert loaded.config.parameters == {"train_seed": 3}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("where.threads=2", "where.threads", 2),
        ("where.teacher.timeout=1.5", "where.teacher.timeout", 1.5),
        ("where.store=a=b", "where.store", "a=b"),
        (" where.device =cpu", "where.device", "cpu"),
        ("where.documents.mirrors={u: p}", "where.documents.mirrors.u", "p"),
    ],
)
def test_values_of_set_are_yaml(folder: Path, text: str, path: str, value: Any) -> None:
    assert flatten(load(folder, sets=[text]).config)[path] == value


def test_paths_are_relative_to_the_project_wherever_one_stands(folder: Path) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    loaded = load(below, sets=["where.cache=cache"])
    assert loaded.base == folder.resolve()
    assert loaded.store == folder.resolve() / ".ilab" / "store"
    assert loaded.path("x/y") == folder.resolve() / "x" / "y"
    assert load(below, flags={"where.store": "/elsewhere"}).store == Path("/elsewhere")


def test_without_a_project_the_store_is_in_the_data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "plain").mkdir()
    assert load(tmp_path / "plain").store == tmp_path / "data" / "instructlab" / "store"


@pytest.mark.parametrize(
    ("old", "new", "line", "texts"),
    [
        ("  threads: 2", "  thread: 2", 4, ("unknown setting 'where.thread'", "'threads'")),
        ("pipeline: quickstart", "pipline: quickstart", 1, ("unknown setting 'pipline'", "'pipeline'")),
        ("    timeout: 5", "    timeuot: 5", 7, ("unknown setting 'where.teacher.timeuot'", "'timeout'")),
        ("    timeout: 5", "    zzz: 5", 7, ("unknown setting", "known here: ")),
        ("  threads: 2", "  threads: two", 4, ("where.threads", "integer")),
        ("  threads: 2", "  threads: 0", 4, ("where.threads", "greater than 0")),
        ("    timeout: 5", "    timeout: -1", 7, ("where.teacher.timeout", "greater than 0")),
        ("parameters: {train_seed: 7}", "parameters: 3", 2, ("parameters", "dictionary")),
        ("parameters: {train_seed: 7}", "parameters: {", 4, ("cannot be read",)),
    ],
)
def test_mistakes_name_file_line_and_word(folder: Path, old: str, new: str, line: int, texts: tuple[str, ...]) -> None:
    path = folder / PROJECT_FILE
    path.write_text(FILE.replace(old, new))
    with pytest.raises(InputError) as caught:
        load(folder)
    assert caught.value.where.startswith(f"{path}:{line}")
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "word\n"])
def test_a_project_file_is_a_mapping(folder: Path, text: str) -> None:
    (folder / PROJECT_FILE).write_text(text)
    with pytest.raises(InputError, match="mapping"):
        load(folder)


def test_an_empty_project_file_marks_a_project(folder: Path) -> None:
    (folder / PROJECT_FILE).write_text("# nothing yet\n")
    assert load(folder).config.pipeline == "instructlab"
    assert load(folder).store.is_relative_to(folder.resolve())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("where.threads", "PATH=VALUE"),
        ("where.threads.more=1", "is a value, not a group"),
        ("where.threads=[", "no YAML"),
        ("where.nothing=1", "unknown setting 'where.nothing'"),
    ],
)
def test_wrong_set(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(folder, sets=[text])


def test_a_file_cannot_run_code(folder: Path) -> None:
    (folder / PROJECT_FILE).write_text("pipeline: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match="cannot be read"):
        load(folder)


def test_a_key_that_is_given_itself_is_refused_and_not_shown(tmp_path: Path) -> None:
    sets = ("where.teacher.url=http://127.0.0.1:1/v1", "where.teacher.api_key=sk-very-secret")
    with pytest.raises(InputError, match="by reference") as caught:
        load(tmp_path, sets=sets)
    assert "sk-very-secret" not in f"{caught.value}{caught.value.__cause__ and caught.value.hint}"
    kept = load(tmp_path, sets=(sets[0], "where.teacher.api_key=env:KEY"))
    assert kept.config.where.teacher is not None and kept.config.where.teacher.api_key == "env:KEY"

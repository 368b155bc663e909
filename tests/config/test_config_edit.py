"""A change touches one line; everything else of the file stays byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.config_edit import change, changed, written
from ilab.errors import InputError, InputErrors

TEXT = """\
# ours
pipeline: "quickstart"   # small

parameters:
    # the seed
    train_seed: 7
where:
    threads: 2     # cores
    train: {processes: 1}
    documents:
        mirrors:
            https://example.org/pages.git: ../pages
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        ("where.threads", 4, "    threads: 2     # cores", "    threads: 4     # cores"),
        ("pipeline", "instructlab", 'pipeline: "quickstart"', 'pipeline: "instructlab"'),
        ("where.train.processes", 2, "{processes: 1}", "{processes: 2}"),
        ("parameters.train_seed", 9, "train_seed: 7", "train_seed: 9"),
    ],
)
def test_one_line_changes(tmp_path: Path, path: str, value: Any, old: str, new: str) -> None:
    file = tmp_path / "ilab.yaml"
    file.write_text(TEXT)
    change(file, {path: value})
    wanted = TEXT.replace(old, new).splitlines()  # the comment behind a value stays in its column
    assert [line.split() for line in file.read_text().splitlines()] == [line.split() for line in wanted]
    assert len(set(file.read_text().splitlines()) - set(TEXT.splitlines())) == 1


def test_new_groups_and_new_files(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "config.yaml"
    change(file, {"where.teacher.url": "http://127.0.0.1:1/v1"})
    change(file, {"where.teacher.in_flight": 3, "parameters.train_seed": 1})
    assert yaml.safe_load(file.read_text()) == {
        "where": {"teacher": {"url": "http://127.0.0.1:1/v1", "in_flight": 3}},
        "parameters": {"train_seed": 1},
    }


def test_a_file_of_comments_keeps_them(tmp_path: Path) -> None:
    assert changed("# nothing yet\n", {"where.jobs": 1}, tmp_path) == "# nothing yet\nwhere:\n  jobs: 1\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"where.thread": 1}, "unknown setting 'where.thread'"),
        ({"where.jobs": 0}, "greater than 0"),
        ({"parameters.train_sed": 1}, "unknown parameter 'train_sed'"),
        ({"where.teacher.api_key": "sk-secret"}, "by reference|url"),
        ({"pipeline.x": 1}, "is a value, not a group"),
    ],
)
def test_a_mistake_never_reaches_the_file(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    file = tmp_path / "ilab.yaml"
    file.write_text(TEXT)
    with pytest.raises(InputError) as caught:
        change(file, settings)
    wrong = caught.value.errors if isinstance(caught.value, InputErrors) else [caught.value]
    import re

    assert re.search(message, " ".join(error.message for error in wrong))
    assert "sk-secret" not in str(caught.value)
    assert file.read_text() == TEXT


def test_instructlabs_files_are_not_mixed_with_ours(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("train: {device: cpu}\n")
    with pytest.raises(InputError, match="a file of InstructLab's") as caught:
        change(file, {"where.jobs": 1})
    assert f"ilab config migrate {file}" in caught.value.hint


def test_a_new_file_explains_its_settings() -> None:
    tree = {"profile": "cpu", "where": {"jobs": 1, "train": {"processes": 2}}, "parameters": {"train_seed": 1}}
    comments = {"where.train.processes": "one for each", "profile": "this machine", "parameters.train_seed": "a\nb"}
    text = written(tree, comments, "Head\n\nand more")
    assert text == (
        "# Head\n#\n# and more\n# this machine\nprofile: cpu\nwhere:\n  jobs: 1\n  train:\n    # one for each\n"
        "    processes: 2\nparameters:\n  # a\n  # b\n  train_seed: 1\n"
    )
    assert yaml.safe_load(text) == tree

"""Profiles hold where and how only; what they recommend fits, and is said with size and licence."""

from __future__ import annotations

from pathlib import Path

import pytest

from ilab.config import Config, load
from ilab.errors import InputError
from ilab.hardware import GIB
from ilab.models.family import FAMILIES
from ilab.profiles import (
    ROLES,
    Profile,
    checked,
    fidelity_note,
    find_profile,
    model_by_id,
    read_profile,
    shipped,
    wanted,
)


@pytest.mark.parametrize("profile", shipped().values(), ids=lambda profile: profile.name)
def test_shipped_profiles_are_whole(profile: Profile) -> None:
    assert profile.description
    assert profile.fits is not None
    assert set(profile.models) == set(ROLES)
    for model in profile.models.values():
        assert model.licence in ("Apache-2.0", "MIT"), "open models alone"
        assert model.bytes > 0
        assert not model.family or model.family in FAMILIES
        owner, _, name = model.repository.partition("/")
        assert owner and name and "/" not in name
    Config.model_validate({"where": profile.where})
    memory = profile.fits.memory * profile.fits.devices * GIB
    if memory:
        for role in ("teacher", "judge"):
            assert profile.models[role].bytes < 0.95 * memory, f"the {role} is to fit beside its context"


def test_the_day_of_the_check_is_said() -> None:
    assert checked().year >= 2026


def test_a_profile_lies_under_the_files(tmp_path: Path) -> None:
    (tmp_path / "ilab.yaml").write_text("profile: gpus-8\nwhere:\n  jobs: 3\n")
    loaded = load(tmp_path)
    assert loaded.profile is not None and loaded.profile.name == "gpus-8"
    where = loaded.config.where
    assert (where.jobs, where.train.processes, where.train.nodes) == (3, 8, 1)
    assert loaded.origins["where.train.processes"] == "profile gpus-8"
    assert loaded.origins["where.jobs"] == "ilab.yaml:3"
    assert load(tmp_path, sets=["profile=cpu"]).config.where.train.processes == 1
    assert load(tmp_path, sets=["profile="]).profile is None
    assert shipped()["gpus-8"].where["jobs"] == 1, "merging changes no profile"


def test_a_profile_of_ones_own_stands_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(
        "models:\n  teacher: qwen3-8b-q4\n  judge: {repository: a/b, bytes: 1e9, licence: MIT}\nwhere: {threads: 4}\n"
    )
    (tmp_path / "ilab.yaml").write_text("profile: ours.yaml\n")
    (tmp_path / "below").mkdir()
    loaded = load(tmp_path / "below")
    assert loaded.config.where.threads == 4
    assert loaded.origins["where.threads"] == "profile ours"
    assert {role: str(model) for role, model in wanted(loaded).items()} == {
        "teacher": "Qwen/Qwen3-8B-GGUF (Qwen3-8B-Q4_K_M.gguf), 5.0 GB, licence Apache-2.0",
        "judge": "a/b, 1.0 GB, licence MIT",
    }


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("where: {}\nparameters: {train_seed: 3}\n", 2, "parameters: unknown setting"),
        ("models:\n  teacher: qwen9\n", 2, "no recommended model 'qwen9'"),
        ("models: {driver: qwen3-8b-q4}\n", 1, "models.driver"),
        ("fits: {kind: tpu, memory: 3}\n", 1, "fits.kind"),
    ],
)
def test_a_profile_holds_nothing_else(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_profile(path)
    assert caught.value.where == f"{path}:{line}"


def test_a_wrong_setting_of_a_profile_names_it(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("where: {thread: 2}\n")
    with pytest.raises(InputError, match=r"unknown setting 'where.thread'") as caught:
        load(tmp_path, sets=["profile=p.yaml"])
    assert caught.value.where == "profile p"


def test_there_is_no_such_profile(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no profile 'gpu-9'") as caught:
        find_profile("gpu-9", tmp_path)
    assert "gpu-8" in caught.value.hint
    (tmp_path / "ilab.yaml").write_text("# x\nprofile: gpu-9\n")
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert caught.value.where == f"{tmp_path / 'ilab.yaml'}:2"


def test_one_setting_swaps_a_model(tmp_path: Path) -> None:
    before = wanted(load(tmp_path, sets=["profile=gpu-24"]))
    after = wanted(
        load(
            tmp_path, sets=["profile=gpu-24", "models.teacher=openai/gpt-oss-20b", "parameters.sdg_base_model=own/one"]
        )
    )
    assert before["teacher"].repository == "Qwen/Qwen3-30B-A3B-GGUF"
    assert after["teacher"].bytes > 10e9, "a recommended one is known with its size"
    assert (after["student"].repository, after["student"].licence) == ("own/one", "unknown")
    assert after["judge"] == before["judge"]


def test_a_model_of_ones_own_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "ilab.yaml").write_text(
        "profile: cpu\nmodels:\n  teacher: big\n  named:\n"
        "    big: {path: a/b, family: granite}\n    small-1.0: {path: mine, system_prompt: Be brief.}\n"
    )
    loaded = load(tmp_path)
    small = model_by_id(loaded, "small-1.0")
    assert (small.path, small.system_prompt) == (str(tmp_path / "mine"), "Be brief.")
    assert (model_by_id(loaded, "big").path, model_by_id(loaded, "big").family) == ("a/b", "granite")
    assert wanted(loaded)["teacher"].repository == "a/b"
    with pytest.raises(InputError, match="no model has the id 'small-1'") as caught:
        model_by_id(loaded, "small-1")
    assert "did you mean 'small-1.0'?" in caught.value.hint
    (tmp_path / "ilab.yaml").write_text("models:\n  named:\n    big: {path: a/b, famly: granite}\n")
    with pytest.raises(InputError, match=r"unknown setting 'models.named.big.famly'") as caught:
        load(tmp_path)
    assert (caught.value.where, caught.value.hint) == (f"{tmp_path / 'ilab.yaml'}:3", "did you mean 'family'?")
    with pytest.raises(InputError, match="no model has the id 'big'"):
        model_by_id(load(tmp_path / "mine", user=None, sets=["models.named={}"]), "big")


def test_small_profiles_say_what_they_are(tmp_path: Path) -> None:
    small, large = shipped()["cpu"], shipped()["gpu-80"]
    alone, served = fidelity_note(small, served=False), fidelity_note(small, served=True)
    assert "low-fidelity approximation" in alone and "\n" not in alone
    assert "Qwen/Qwen3-1.7B-GGUF" in alone and "where.teacher.url" in alone and "train_method" in alone
    assert "Qwen/Qwen3-1.7B-GGUF" not in served and "where.teacher.url" not in served
    assert fidelity_note(large, served=False) == fidelity_note(None, served=False) == ""

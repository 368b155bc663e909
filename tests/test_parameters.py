"""The parameter table: layers, types, ranges, and how the older general names become what steps take."""

from __future__ import annotations

from typing import Any

import pytest

from ilab.errors import InputError
from ilab.parameters import BY_NAME, TABLE, collect, derive


def values(**given: Any) -> dict[str, Any]:
    return {name: one.value for name, one in collect({"-p": given}).items()}


def test_later_layers_win_and_say_who_they_are() -> None:
    given = collect(
        {
            "pipeline quickstart": {"train_seed": 1, "sdg_scale_factor": 2},
            "ilab.yaml": {"train_seed": 3},
            "-p": {"sdg_scale_factor": "4"},
        }
    )
    assert (given["train_seed"].value, given["train_seed"].origin) == (3, "ilab.yaml")
    assert (given["sdg_scale_factor"].value, given["sdg_scale_factor"].origin) == (4, "-p")
    assert (given["eval_metrics"].value, given["eval_metrics"].origin) == ("accuracy,f1", "default")
    assert set(given) == {parameter.name for parameter in TABLE}


def test_every_row_of_the_table_is_whole() -> None:
    assert len(BY_NAME) == len(TABLE)
    for parameter in TABLE:
        assert parameter.help
        if parameter.default is not None:
            assert type(parameter.default) is parameter.type, parameter.name
            assert parameter.check(parameter.default), f"the default of {parameter.name} is out of its own range"


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("train_learning_rate", "2e-5", 2e-5),
        ("train_learning_rate", 1, 1.0),
        ("sdg_scale_factor", "8", 8),
        ("output_model_version", "1.2.3-rc.1", "1.2.3-rc.1"),
        ("sdg_teacher_model", 7, "7"),
        ("train_effective_batch_size_phase_1", None, None),
        ("eval_quality_threshold", "0", 0.0),
    ],
)
def test_text_from_a_command_line_becomes_the_right_type(name: str, value: Any, taken: Any) -> None:
    got = values(**{name: value})[name]
    assert got == taken and type(got) is type(taken)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sdg_scale_factor", "many", "not a number"),
        ("sdg_scale_factor", "1.5", "not a number"),
        ("sdg_scale_factor", 1.5, "takes int"),
        ("sdg_scale_factor", True, "takes int"),
        ("sdg_scale_factor", 0, "out of range"),
        ("sdg_scale_factor", None, "takes int"),
        ("sdg_scale_factor", [3], "takes int"),
        ("train_learning_rate", "nan", "out of range"),
        ("train_precision", "fp16", "out of range"),
        ("eval_metrics", "accuracy,bleu", "out of range"),
        ("eval_quality_threshold", 1.01, "out of range"),
        ("output_model_version", "1.2", "out of range"),
        ("output_model_version", "1.2.3\n", "out of range"),
    ],
)
def test_wrong_values_name_the_parameter_and_where_it_was_given(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        collect({"ilab.yaml": {name: value}})
    assert name in caught.value.where and "ilab.yaml" in caught.value.where
    if message == "out of range":
        assert caught.value.hint.startswith("valid: ") and len(caught.value.hint) > len("valid: ")


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown parameter 'train_epoch_phase_1'") as caught:
        collect({"-p": {"train_epoch_phase_1": 3}})
    assert caught.value.hint == "did you mean 'train_epochs_phase_1'?"
    assert caught.value.where == "-p"


def test_specific_beats_general() -> None:
    general = values(
        train_batch_size=4, train_gradient_accumulation_steps=3, train_num_workers=2, train_learning_rate=1e-3
    )
    derived = derive(general)
    assert (derived["batch_phase_1"], derived["batch_phase_2"]) == (24, 24)
    assert (derived["rate_phase_1"], derived["rate_phase_2"]) == (1e-3, 1e-3)
    derived = derive({**general, "train_effective_batch_size_phase_2": 100, "train_learning_rate_phase_1": 5e-4})
    assert (derived["batch_phase_1"], derived["batch_phase_2"]) == (24, 100)
    assert (derived["rate_phase_1"], derived["rate_phase_2"]) == (5e-4, 1e-3)
    assert derive(values(eval_metrics=" f1 , accuracy"))["metrics"] == ["f1", "accuracy"]


def test_a_branch_or_a_pull_request_of_the_taxonomy() -> None:
    url = "https://git.example/taxonomy.git"
    assert derive(values(sdg_repo_url=url, sdg_repo_branch="main"))["sdg_repo_url"] == f"{url}#main"
    assert derive(values(sdg_repo_url=url, sdg_repo_pr=7))["sdg_repo_url"] == f"{url}#refs/pull/7/head"
    for given, message in (
        ({"sdg_repo_url": "folder", "sdg_repo_branch": "main"}, "no git address"),
        ({"sdg_repo_url": url, "sdg_repo_branch": "main", "sdg_repo_pr": 7}, "one of them"),
        ({"sdg_repo_url": f"{url}@v1", "sdg_repo_branch": "main"}, "names a ref itself"),
    ):
        with pytest.raises(InputError, match=message):
            derive(values(**given))


def test_older_names_mean_what_newer_ones_do() -> None:
    assert derive(values(sdg_sample_size=0.5))["sampling_size"] == 0.5
    assert derive(values(sdg_max_batch_len=100))["train_sequence_length"] == 100
    assert derive(values(sdg_max_batch_len=9000))["train_sequence_length"] == 2048
    assert collect({"-p": {"mt_bench_merge_system_user_message": "true"}}).keys() == BY_NAME.keys()

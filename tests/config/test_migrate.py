"""InstructLab's files: every setting has a row; what is translated counts, what is not is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from ilab.cli.app import main
from ilab.config import cache_home, check_source, data_home, known_paths, load, user_file
from ilab.config_source import parse_source, paths_of
from ilab.migrate import Translation, is_instructlab, translate
from ilab.migrate_table import ROWS
from ilab.parameters import BY_NAME

OLD = """\
chat:
  context: default
  greedy_mode: false
  temperature: 0.3
general:
  log_level: INFO
generate:
  model: models/merlinite-7b-lab-Q4_K_M.gguf
  num_cpus: 10
  num_instructions: 100
  prompt_file: prompt.txt
  seed_file: mine.json
  taxonomy_base: origin/main
  taxonomy_path: taxonomy
serve:
  gpu_layers: -1
  host_port: 127.0.0.1:8000
  max_ctx_size: 4096
  model_path: models/merlinite-7b-lab-Q4_K_M.gguf
"""
NEW = """\
version: 1.0.0
general:
  teacher_model_id: big
  student_model_id: small
models:
- {id: big, family: Mixtral, path: ~/models/mixtral}
- {id: small, path: /models/granite}
generate:
  batch_size: 0
  pipeline: full
  sdg_scale_factor: 30
  taxonomy_path: ~/tax
  teacher:
    model_path: %MODELS%/mistral-7b-instruct-v0.2.Q4_K_M.gguf
    server: {port: 8001}
    vllm: {vllm_args: [--max-model-len, "8192"], llm_family: ''}
serve:
  model_path: /models/served.gguf
  teachers: 3
train:
  additional_args: {learning_rate: 1.0e-05, lora_target_modules: [q_proj, v_proj], nnodes: 1}
  ckpt_output_dir: %DATA%/checkpoints
  device: hpu
  lora_rank: 8
  max_batch_len: 60000
  nproc_per_node: 8
  phased_phase1_num_epochs: 7
  phased_phase2_learning_rate: 6.0e-06
"""


def read(text: str) -> Translation:
    return translate(parse_source(filled(text), Path("config.yaml")))


def filled(text: str) -> str:
    """``text`` with the folders that InstructLab wrote in full."""
    return text.replace("%MODELS%", str(cache_home() / "models")).replace("%DATA%", str(data_home()))


def test_every_setting_of_the_last_release_has_a_row(shared: Path) -> None:
    text = (shared / "reference/upstream-cli.md").read_text(encoding="utf-8")
    table = text[text.index("### 2.3 All keys") : text.index("### 2.4")]
    names = re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)
    assert len(names) > 100
    assert [name for name in names if name not in ROWS] == []


VALUES: dict[str, Any] = {"train.device": "cuda", "train.additional_args": {"random_seed": 3}, "train.lora_rank": 4}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_leads_to_settings_that_exist(name: str) -> None:
    row = ROWS[name]
    for value in (VALUES.get(name, 3), True):
        for target in row.read(value):
            group, _, parameter = target.partition(".")
            assert target in known_paths() or (group == "parameters" and parameter in BY_NAME), target
    assert row.instead or row.read(VALUES.get(name, 3)) or name in ("version", "models", "general.use_legacy_tmpl")


@pytest.mark.parametrize("name", ROWS)
def test_every_command_that_a_row_names_exists(name: str) -> None:
    for words, options in re.findall(r"ilab ((?:[a-z]+ ?)+)((?: ?--[a-z-]+| [A-Z]+)*)", ROWS[name].instead):
        found: click.Command = main
        context = click.Context(main, info_name="ilab")
        for word in words.split():
            assert isinstance(found, click.Group), words
            command = found.get_command(context, word)
            assert command is not None, words
            found, context = command, click.Context(command, parent=context, info_name=word)
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        assert set(re.findall(r"--[a-z-]+", options)) <= known


def test_a_file_of_the_last_version() -> None:
    found = read(NEW)
    assert found.version == "1.0.0"
    assert paths_of(found.tree) == {
        "parameters.sdg_batch_size": 1,
        "parameters.sdg_pipeline": "full",
        "parameters.sdg_scale_factor": 30,
        "parameters.sdg_repo_url": str(Path("~/tax").expanduser()),
        "models.default": "/models/served.gguf",
        "parameters.train_learning_rate": 1e-5,
        "parameters.train_lora_targets": "q_proj,v_proj",
        "parameters.train_method": "lora",
        "parameters.train_lora_rank": 8,
        "parameters.train_max_batch_len": 60000,
        "where.train.processes": 8,
        "parameters.train_epochs_phase_1": 7,
        "parameters.train_learning_rate_phase_2": 6e-6,
        "models.teacher": str(Path("~/models/mixtral").expanduser()),
        "parameters.sdg_teacher_family": "mixtral",
        "parameters.sdg_base_model": "/models/granite",
        "models.named.big.path": str(Path("~/models/mixtral").expanduser()),
        "models.named.big.family": "Mixtral",
        "models.named.small.path": "/models/granite",
    }
    assert {left.path: left.place for left in found.left} == {
        "generate.teacher.server.port": "config.yaml:15",
        "generate.teacher.vllm.vllm_args": "config.yaml:16",
        "serve.teachers": "config.yaml:19",
        "train.device": "config.yaml:23",
    }
    assert all(left.instead for left in found.left)
    assert check_source(found.as_source(Path("config.yaml"))) == []


def test_a_file_of_the_first_versions() -> None:
    found = read(OLD)
    assert found.version == "0.x"
    assert paths_of(found.tree) == {
        "parameters.sdg_num_workers": 10,
        "parameters.taxonomy_base": "origin/main",
        "parameters.sdg_repo_url": "taxonomy",
        "models.teacher": "models/merlinite-7b-lab-Q4_K_M.gguf",
        "models.default": "models/merlinite-7b-lab-Q4_K_M.gguf",
    }
    assert {left.path for left in found.left} == {
        "chat.temperature",
        "generate.num_instructions",
        "generate.seed_file",
    }
    assert found.defaults == 7


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        (OLD, True),
        (NEW, True),
        ("version: 1.0.0\n", True),
        ("where: {jobs: 1}\n", False),
        ("models: {teacher: a/b}\n", False),
        ("models: [{id: a}]\nchat: {}\n", True),
        ("pipeline: quickstart\ntrain: {}\n", False),
        ("", False),
    ],
)
def test_whose_file_it_is(text: str, theirs: bool) -> None:
    assert is_instructlab(parse_source(filled(text), Path("f")).tree) is theirs


def test_a_file_of_theirs_counts_where_it_lies(tmp_path: Path) -> None:
    path = user_file()
    path.parent.mkdir(parents=True)
    path.write_text(filled(NEW))
    loaded = load(tmp_path)
    assert loaded.config.where.train.processes == 8
    assert loaded.origins["where.train.processes"] == "config.yaml:26"
    (note,) = loaded.notes
    assert note.startswith(f"{path} is a file of InstructLab's (version 1.0.0): ")
    assert f"ilab config migrate {path}" in note
    (tmp_path / "ilab.yaml").write_text("")
    inside = load(tmp_path).config
    assert (inside.where.train.processes, inside.parameters) == (8, {})


def test_a_wrong_value_of_theirs_names_its_line(tmp_path: Path) -> None:
    path = user_file()
    path.parent.mkdir(parents=True)
    path.write_text("train:\n  device: cpu\n  nproc_per_node: many\n")
    with pytest.raises(Exception, match=r"where.train.processes") as caught:
        load(tmp_path)
    assert f"{path}:3" in str(caught.value)


@pytest.mark.parametrize("value", ["[1]", "{a: 1}", "null", "''", "x", "-3", "true", "1.5", "~", "$HOME/x"])
def test_odd_values_are_no_reason_to_fail(value: str) -> None:
    groups: dict[str, list[str]] = {}
    for name in ROWS:
        group, _, rest = name.partition(".")
        if rest and "." not in rest:
            groups.setdefault(group, []).append(f"  {rest}: {value}\n")
    text = "".join(f"{group}:\n{''.join(lines)}" for group, lines in groups.items())
    found = translate(parse_source(text, Path("c.yaml")))
    assert set(found.tree) <= {"parameters", "models", "where"}
    check_source(found.as_source(Path("c.yaml")))


def test_entries_of_models_that_cannot_be_used_are_said() -> None:
    listed = """\
models:
- {id: granite-3.1, path: /models/granite, system_prompt: Be brief., family: null}
- {id: granite-3.1, path: /models/other}
- {id: nowhere}
- 7
- {id: more, path: a/b, weights: 3}
general: {teacher_model_id: nowhere}
"""
    found = read(listed)
    assert found.tree["models"]["named"] == {
        "granite-3.1": {"path": "/models/granite", "system_prompt": "Be brief."},
        "more": {"path": "a/b"},
    }
    assert [left.path for left in found.left] == [
        "general.teacher_model_id",
        "models[1]",
        "models[2]",
        "models[3]",
        "models[4].weights",
    ]
    assert check_source(found.as_source(Path("config.yaml"))) == []


# The shapes of the profiles that InstructLab was tried with, in our own words: what each had and the others had not.
SHAPES = {
    "a small GPU, for which a CPU trained": (
        """\
version: 1.0.0
generate: {max_num_tokens: 512, seed_file: ~/seeds.json, taxonomy_base: empty, teacher: {backend: llama-cpp}}
serve: {chat_template: auto, vllm: {vllm_args: [--tensor-parallel-size, "1"]}}
train:
  additional_args: {warmup_steps: 25, deepspeed_cpu_offload_optimizer_pin_memory: true, nnodes: 1}
  device: cpu
  is_padding_free: true
  lora_rank: 0
""",
        {"parameters.taxonomy_base": "empty", "where.device": "cpu", "parameters.train_num_warmup_steps_phase_2": 25},
        {"generate.seed_file", "train.additional_args.deepspeed_cpu_offload_optimizer_pin_memory"},
    ),
    "several GPUs": (
        """\
version: 1.0.0
metadata: {gpu_manufacturer: Nvidia, gpu_family: L40S, gpu_count: 4}
train: {device: cuda, nproc_per_node: 4, pipeline: accelerated, phased_phase1_samples_per_save: 0}
""",
        {"where.device": "cuda", "where.train.processes": 4},
        {"metadata.gpu_count", "train.pipeline"},
    ),
    "a teacher by its id": (
        """\
version: 1.0.0
general: {teacher_model_id: llama-3.3}
generate: {teacher: {vllm: {gpus: 8, llm_family: mixtral}}}
models: [{id: llama-3.3, family: meta-llama, path: /models/llama}]
train: {additional_args: {use_dolomite: true, deepspeed_cpu_oddload_optimizer_ratio: 1}}
""",
        {"models.teacher": "/models/llama", "parameters.sdg_teacher_family": "llama"},
        {"train.additional_args.use_dolomite", "train.additional_args.deepspeed_cpu_oddload_optimizer_ratio"},
    ),
    "a family that nobody knows": (
        "version: 1.0.0\nmodels: [{id: a, family: phi, path: /a}]\ngeneral: {teacher_model_id: a}\n",
        {"models.teacher": "/a"},
        {"general.teacher_model_id"},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_of_profiles(shape: str) -> None:
    text, settings, left = SHAPES[shape]
    source = parse_source(text, Path("profile.yaml"))
    found = translate(source)
    assert settings.items() <= paths_of(found.tree).items()
    assert left <= {one.path for one in found.left}
    assert check_source(found.as_source(Path("profile.yaml"))) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_of_a_file_is_dropped_in_silence(shape: str) -> None:
    source = parse_source(SHAPES[shape][0], Path("profile.yaml"))
    found = translate(source)
    given = [path for path, value in paths_of(source.tree).items() if value is not None and path != "version"]
    told = len({one.path for one in found.left}) + found.defaults + len(found.lines)
    assert told >= len(given), (given, found)

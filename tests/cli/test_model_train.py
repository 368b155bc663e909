"""``ilab model train`` and the old ``ilab train``: what is trained on, what is chosen, what lies where, exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from transformers import AutoTokenizer

from ilab.cli.app import main
from ilab.cli.train_options import OLD
from ilab.core.store import RecordFile, Store
from ilab.errors import IlabError, InputError, SetupError
from ilab.training.tiny import TinySpec, make_tiny

# The file of a run's events stays open until the process ends; here that is the end of all tests.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated"),  # PEFT asks for it
]
FAST = ["--max-seq-len", "128", "--effective-batch-size", "4", "--num-epochs", "2", "--learning-rate", "3e-3"]
ANSWERS = {"What is the kiln made of?": "steel", "Who built the lock?": "Ada Brook", "Which colour is it?": "green"}


def messages(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "base"
    make_tiny(folder, TinySpec(width=32, heads=2, feed_forward=64, vocabulary=400))
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with data of two phases."""
    write(tmp_path / "knowledge.jsonl", [messages(f"What is {n} plus {n}?", f"It is {2 * n}.") for n in range(8)])
    write(tmp_path / "skills.jsonl", [messages(f"Say {n} twice.", f"{n} {n}") for n in range(6)])
    return tmp_path


def ilab(folder: Path, *arguments: str) -> Result:
    """The command with a store in ``folder``. An error of ours is the result's exception."""
    done = CliRunner().invoke(main, ["-C", str(folder), "--store", str(folder / "store"), *arguments])
    if done.exception is not None and not isinstance(done.exception, (IlabError, SystemExit)):
        raise done.exception
    return done


def train(folder: Path, model: Path | str, *arguments: str) -> Any:
    """What ``ilab model train`` says it did."""
    done = ilab(folder, "--json", "model", "train", "--model-path", str(model), *FAST, *arguments)
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def records(folder: Path, type_: str) -> list[RecordFile]:
    return sorted((one for one in Store(folder / "store").records() if one.type == type_), key=lambda one: one.started)


def test_a_file_is_trained_on_and_found_again_whatever_it_is_called(here: Path, small: Path) -> None:
    told = train(here, small, "--data-path", "knowledge.jsonl", "--ckpt-output-dir", "out")
    assert told["best"] == str(here / "out" / "hf_format" / "samples_16")  # 8 rows, twice
    assert (here / "out" / "hf_format" / "samples_16" / "model.safetensors").is_file()
    (here / "knowledge.jsonl").rename(here / "other.jsonl")
    again = train(here, small, "--data-path", "other.jsonl", "--ckpt-output-dir", "out")
    assert again == told
    (made,) = records(here, "train")
    assert (made.fields["epochs"], made.fields["batch"], made.fields["method"]) == (2, 4, "full")
    assert (made.counts["rows"], made.counts["steps"]) == (8, 4)


def test_what_is_said_at_the_end(here: Path, small: Path) -> None:
    done = ilab(here, "train", "--model-path", str(small), "--data-path", "skills.jsonl", "-y", *FAST)
    lines = done.stdout.splitlines()
    best = Path(lines[-2].removeprefix("Best final checkpoint: "))
    assert (best / "config.json").is_file()
    assert lines[-1] == f"Next: ilab chat --model-path {best}"
    assert lines[-3] == "select: epoch-002 of 2: not selected: no validation data"
    assert "note: --skip-user-confirm is not needed" in done.stderr
    assert "train: done" in done.stderr


def test_documents_and_tools_are_trained_on(here: Path, small: Path) -> None:
    write(here / "text.jsonl", [{"text": f"Canal {n} has {n + 3} locks. " * 3} for n in range(4)])
    done = ilab(here, "model", "train", "--data-path", "text.jsonl", "--model-path", str(small), *FAST)
    assert done.exit_code == 0, done.output
    call = {"type": "function", "function": {"name": "locks", "arguments": {"canal": 1}}}
    turns = [*messages("How many?", "14")["messages"]]
    turns[1:1] = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "14"}]
    write(
        here / "tools.jsonl", [{"messages": turns, "tools": [{"type": "function", "function": {"name": "locks"}}]}] * 4
    )
    to_train = "model", "train", "--data-path", "tools.jsonl", "--model-path", str(small), "--ckpt-output-dir", "out"
    done = ilab(here, *to_train, *FAST)
    assert isinstance(done.exception, InputError) and "tools, which the chat template does not" in str(done.exception)
    assert "train_chat_template" in done.exception.hint
    done = ilab(here, *to_train, *FAST, "--max-seq-len", "500", "--chat-template", "qwen")
    assert done.exit_code == 0, done.output
    assert "2 new tokens: <|im_start|>, <|im_end|>" in done.output
    (model,) = (path.parent for path in (here / "out").rglob("config.json"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    written = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert written == "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
    weights = load_file(model / "model.safetensors")["model.embed_tokens.weight"]
    before = load_file(small / "model.safetensors")["model.embed_tokens.weight"]
    assert len(weights) == json.loads((model / "config.json").read_text())["vocab_size"] == len(before) + 2
    assert not torch.equal(weights[-1], weights[-2]), "both new tokens have learned"
    stops = json.loads((model / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.eos_token == "<|im_end|>" and stops[0] == tokenizer.eos_token_id


def test_a_base_without_a_template_needs_one_before_anything_is_made(here: Path, small: Path) -> None:
    bare = here / "bare"
    shutil.copytree(small, bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    to_train = "model", "train", "--data-path", "skills.jsonl", "--model-path", str(bare), "--dry-run"
    done = ilab(here, *to_train)
    assert isinstance(done.exception, InputError) and "has no chat template" in str(done.exception)
    assert "--chat-template NAME" in done.exception.hint and "granite" in done.exception.hint
    (here / "mine.jinja").write_text("{% for m in messages %}{{ m.role + ': ' + m.content + '<|end|>' }}{% endfor %}")
    assert ilab(here, *to_train, "--chat-template", "mine.jinja").exit_code == 0
    done = ilab(here, *to_train, "--chat-template", "granite", "--method", "lora")
    assert isinstance(done.exception, InputError) and "never stop" in str(done.exception)
    done = ilab(here, "data", "mask", "skills.jsonl", "--model", "bare", "--template", "mine.jinja", "--number", "1")
    assert "user: Say 0 twice.<|end|>⟦assistant: 0 0<|end|>⟧" in done.output


def test_two_phases_follow_one_another(here: Path, small: Path) -> None:
    told = train(
        here, small, "--strategy", "lab-multiphase", "--phased-phase1-data", "knowledge.jsonl",
        "--phased-phase2-data", "skills.jsonl", "--phased-phase1-num-epochs", "1",
        "--phased-phase2-effective-batch-size", "3", "--phased-phase2-learning-rate", "1e-3",
        "--phased-base-dir", "phased", "--validation-share", "0.4", "--select", "loss",
    )  # fmt: skip
    first, second = records(here, "train")
    assert (first.fields["epochs"], first.fields["batch"], first.fields["learning_rate"]) == (1, 4, 3e-3)
    assert (second.fields["epochs"], second.fields["batch"], second.fields["learning_rate"]) == (2, 3, 1e-3)
    assert second.inputs["base"] == records(here, "select")[0].key
    assert [phase["step"] for phase in told["phases"]] == ["select-1", "select-2"]
    table = told["phases"][1]["table"]
    assert told["phases"][1]["rule"] == "lowest held-out loss"
    assert min(table, key=lambda row: row["loss"])["chosen"]
    for number in (1, 2):
        assert list((here / "phased" / f"phase{number}").glob("checkpoints/hf_format/samples_*/config.json"))


def test_a_phase_that_is_done_is_not_trained_again(here: Path, small: Path) -> None:
    phases = ["--phased-phase1-data", "knowledge.jsonl", "--phased-phase2-data", "skills.jsonl"]
    broken = ilab(
        here, "model", "train", "--model-path", str(small), *FAST, *phases, "--phased-phase2-learning-rate", "1e30"
    )
    assert isinstance(broken.exception, InputError) and "no number" in broken.exception.message
    (first,) = records(here, "train")
    train(here, small, *phases)
    assert records(here, "train")[0].started == first.started
    assert len(records(here, "train")) == 2


def test_stacked_is_one_run_on_both_files(here: Path, small: Path) -> None:
    write(here / "skills.jsonl", [messages("Say 1 twice.", "1 1"), messages("What is 0 plus 0?", "It is 0.")])
    told = train(
        here, small, "--strategy", "stacked", "--phased-phase1-data", "knowledge.jsonl",
        "--phased-phase2-data", "skills.jsonl",
    )  # fmt: skip
    (made,) = records(here, "train")
    assert made.counts["rows"] == 10
    assert [phase["step"] for phase in told["phases"]] == ["select"]


def test_skills_only_starts_from_the_base(here: Path, small: Path) -> None:
    train(here, small, "--strategy", "lab-skills-only", "--phased-phase2-data", "skills.jsonl")
    (made,) = records(here, "train")
    assert made.inputs["base"] == records(here, "base")[0].key


def test_a_folder_of_exports_has_the_newest_of_each_phase(here: Path, small: Path) -> None:
    for day, number in (("2026-01-02", 3), ("2026-03-01", 5)):
        name = f"{day}T10_00_00.jsonl"
        write(here / "out" / day / f"knowledge_train_msgs_{name}", [messages(f"Q{n}?", "A.") for n in range(number)])
        write(here / "out" / day / f"skills_train_msgs_{name}", [messages(f"S{n}?", "B.") for n in range(number + 1)])
        write(here / "out" / day / f"messages_{name}", [messages(f"M{n}?", "C.") for n in range(number + 2)])
    train(here, small, "--strategy", "lab-multiphase", "--data-path", "out")
    train(here, small, "--data-path", "out")
    assert [one.counts["rows"] for one in records(here, "train")] == [5, 6, 7]


def test_the_old_command_asks_before_and_after(here: Path, small: Path) -> None:
    """The newest pair by the time in its name, {system, user, assistant} rows, and a model that has learned them."""
    rows = [{"system": "Be brief.", "user": question, "assistant": answer} for question, answer in ANSWERS.items()]
    write(here / "generated" / "train_old_2024-01-01T00_00_00.jsonl", [messages("Nothing?", "No.")])
    write(here / "generated" / "train_m_2024-05-02T20_36_31.jsonl", rows)
    write(here / "generated" / "test_m_2024-05-02T20_36_31.jsonl", rows)
    write(here / "generated" / "test_z_2023-05-02T20_36_31.jsonl", rows[:1])
    done = ilab(
        here, "train", "--device", "cuda", "--input-dir", "generated", "--model-path", str(small), "--num-epochs", "60",
        "--method", "full", "--learning-rate", "1e-2", "--save-samples", "180",
    )  # fmt: skip
    assert done.exception is None, done.exception
    assert "note: there is no cuda device on this machine: the CPU trains" in done.stderr
    assert "train_m_2024-05-02T20_36_31.jsonl, asking" in done.stderr
    answers = [json.loads(line) for line in (here / "models" / "answers.jsonl").read_text().splitlines()]
    assert [(row["question"], row["expected"], row["after"]) for row in answers] == [
        (question, answer, answer) for question, answer in ANSWERS.items()
    ]
    assert all(list(row) == ["question", "expected", "before", "after"] for row in answers)
    assert all(row["before"] != row["after"] for row in answers)
    assert "### Who built the lock?" in done.stdout and "after: Ada Brook" in done.stdout
    assert "after 1.00" in done.stdout
    best = here / "models" / "merged_model"
    assert f"Best final checkpoint: {best}" in done.stdout and (best / "model.safetensors").is_file()
    # ``ilab test`` knows the pair, the model and its base, and nobody is asked again.
    asked = sorted((here / "store" / "memo" / "answers").glob("*.jsonl"))
    shown = ilab(here, "--json", "test")
    assert shown.exception is None, shown.exception
    assert json.loads(shown.stdout)["answers"] == answers
    assert sorted((here / "store" / "memo" / "answers").glob("*.jsonl")) == asked
    (here / "ilab.yaml").write_text("pipeline: quickstart\n")  # in a project too, as long as nothing newer was built
    within = ilab(here, "--json", "test")
    assert within.exception is None, within.exception
    assert json.loads(within.stdout)["answers"] == answers


def test_the_old_command_trains_beside_four_bits(here: Path, small: Path) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    write(here / "generated" / "train_1.jsonl", [{"user": "Q?", "assistant": "A."}])
    write(here / "generated" / "test_1.jsonl", [{"user": "Q?", "assistant": "A."}])
    done = ilab(
        here, "train", "--model-path", str(small), "--num-epochs", "1", "--pipeline", "simple"
    )  # the folder needs no word
    assert done.exception is None, done.exception
    (made,) = records(here, "train")
    assert made.fields["method"] == "qlora"
    assert (here / "models" / "merged_model" / "adapter" / "adapter_config.json").is_file()
    assert "note: b" not in done.stderr and "### Q?" in done.stdout


def test_the_old_command_falls_back_and_says_why(here: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr(
        "ilab.training.choice.find_spec", lambda name: None if name == "bitsandbytes" else find_spec(name)
    )
    write(here / "generated" / "train_1.jsonl", [{"user": "Q?", "assistant": "A."}])
    done = ilab(
        here,
        "train",
        "--input-dir",
        "generated",
        "--model-path",
        str(small),
        "--num-epochs",
        "1",
        "--pipeline",
        "simple",
    )
    assert done.exception is None, done.exception
    said = [line for line in done.stderr.splitlines() if "bitsandbytes is not installed" in line]
    assert len(said) == 1 and "LoRA" in said[0]
    assert "note: there is no test_* beside it" in done.stderr
    (made,) = records(here, "train")
    assert (made.fields["method"], made.fields["learning_rate"], made.fields["batch"]) == ("lora", 2e-4, 16)
    assert (here / "models" / "merged_model" / "adapter" / "adapter_config.json").is_file()


def test_a_plan_trains_nothing(here: Path, small: Path) -> None:
    done = ilab(
        here, "--json", "model", "train", "--model-path", str(small), "--data-path", "skills.jsonl", "--dry-run"
    )
    assert {name: step["state"] for name, step in json.loads(done.stdout).items()} == {
        "base": "reuse", "data": "reuse", "train": "run", "select": "run",
    }  # fmt: skip
    assert not records(here, "train")


def failure(folder: Path, *arguments: str) -> IlabError:
    done = ilab(folder, "model", "train", *arguments)
    assert isinstance(done.exception, IlabError), done.output
    assert done.exception.hint
    return done.exception


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ([], InputError, "there is nothing to train on"),
        (["--input-dir", "nowhere"], InputError, "there is no such folder"),
        (["--input-dir", "store"], InputError, "there is no train_*.jsonl in this folder"),
        (["--data-path", "nowhere.jsonl"], InputError, "there is no such file of training data"),
        (["--data-path", "empty.jsonl"], InputError, "this file of training data is empty"),
        (["--data-path", "mixed.jsonl"], InputError, "this row is dialogue, the rows before it are messages"),
        (["--data-path", "knowledge.jsonl", "--model-path", "store"], InputError, "config.json"),
        (["--data-path", "knowledge.jsonl", "--model-path", "nowhere"], InputError, "no such base model"),
        (["--data-path", "knowledge.jsonl", "--device", "gpu"], InputError, "there is no device called 'gpu'"),
        (["--data-path", "knowledge.jsonl", "--device", "hpu"], SetupError, "there is no hpu device"),
        (["--data-path", "knowledge.jsonl", "--select", "loss"], InputError, "no loss on held-out rows is known"),
        (["--data-path", "knowledge.jsonl", "--strategy", "lab-multiphase"], InputError, "two phases take two files"),
        (["--phased-phase1-data", "knowledge.jsonl"], InputError, "one of the two phases has no data"),
        (["--strategy", "lab-skills-only", "--phased-phase1-data", "skills.jsonl"], InputError, "no use for data of"),
        (["--data-path", "skills.jsonl", "--phased-phase2-data", "skills.jsonl"], InputError, "both say what to train"),
        (["--input-dir", "store", "--strategy", "stacked"], InputError, "both say what to train"),
        (["--data-path", "knowledge.jsonl", "--lora-rank", "4", "--method", "full"], InputError, "--lora-rank"),
        (["--data-path", "knowledge.jsonl", "--nnodes", "2"], InputError, "several machines are a matter of where"),
        (["--data-path", "knowledge.jsonl", "--ckpt-output-dir", "taken"], InputError, "holds something else"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(here: Path, small: Path, arguments: list[str], kind: type, said: str) -> None:
    (here / "store").mkdir()
    write(here / "empty.jsonl", [])
    write(here / "mixed.jsonl", [messages("Q?", "A."), {"user": "Q?", "assistant": "A."}])
    write(here / "taken" / "hf_format" / "samples_1" / "mine.txt", [])
    (here / "taken" / "hf_format" / "samples_1" / "mine.txt").write_text("mine")
    model = [] if "--model-path" in arguments else ["--model-path", str(small)]
    error = failure(here, *FAST, *model, *arguments)
    assert type(error) is kind and said in error.message
    if said.startswith("this row"):
        assert error.where == f"{here / 'mixed.jsonl'}:2"
    assert (here / "taken" / "hf_format" / "samples_1" / "mine.txt").read_text() == "mine"


def test_a_model_is_needed(here: Path) -> None:
    """The one that is recommended is named with its size and licence, and never fetched in silence."""
    error = ilab(here, "--set", "profile=cpu", "model", "train", "--data-path", "knowledge.jsonl").exception
    assert isinstance(error, InputError)
    assert "Qwen/Qwen3-0.6B, 1.5 GB, licence Apache-2.0" in error.message
    assert "ilab model download --repository Qwen/Qwen3-0.6B" in error.hint and "--model-path DIR" in error.hint


@pytest.fixture
def student(small: Path) -> Path:
    """The recommended student, as ``ilab model download`` lays it down; a small one."""
    from ilab.transfer.shelf import models_home

    folder = models_home() / "Qwen" / "Qwen3-0.6B"
    shutil.copytree(small, folder)
    return folder


def test_the_downloaded_student_is_trained_where_nobody_names_a_model(here: Path, student: Path) -> None:
    """``ilab train`` in any folder: data from `generated`, the result in `models`, and the second time nothing."""
    write(here / "generated" / "train_1.jsonl", [{"user": "Q?", "assistant": "A."}] * 3)
    write(here / "generated" / "test_1.jsonl", [{"user": "Q?", "assistant": "A."}])
    command = ["--set", "profile=cpu", "train", "--num-epochs", "1", "--device", "cuda"]
    done = ilab(here, *command)
    assert done.exception is None, done.exception
    assert "note: Qwen/Qwen3-0.6B is trained" in done.stderr and "needs no adapter" in done.stderr
    (made,) = records(here, "train")
    assert (made.fields["method"], made.fields["learning_rate"], made.fields["batch"]) == ("full", 3e-3, 16)
    gguf = here / "models" / "ggml-model-f16.gguf"
    assert gguf.read_bytes()[:4] == b"GGUF"
    assert f"Next: ilab serve --model-path {gguf}, and in another terminal: ilab chat" in done.stdout
    times = {path: path.stat().st_mtime_ns for path in (gguf, *(here / "models" / "merged_model").iterdir())}
    again = ilab(here, *command)
    assert again.exception is None, again.exception
    assert again.stdout == done.stdout and "train: started" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in times} == times
    gguf.write_bytes(b"spoilt")
    ilab(here, *command)
    assert gguf.read_bytes()[:4] == b"GGUF", "a file that is not what was written is written again"
    assert ilab(here, "--json", "test", "--model-dir", str(gguf)).exception is None


def test_the_grouped_command_writes_where_later_versions_did(here: Path, small: Path) -> None:
    from ilab.config import data_home

    write(data_home() / "datasets" / "2026" / "train_2026-01-01T00_00_00.jsonl", [{"user": "Q?", "assistant": "A."}])
    write(data_home() / "datasets" / "2026" / "test_2026-01-01T00_00_00.jsonl", [{"user": "Q?", "assistant": "A."}])
    common = ["--model-path", str(small), "--num-epochs", "1", "--method", "full"]
    done = ilab(here, "model", "train", "--pipeline", "simple", *common)
    assert done.exception is None, done.exception
    folder = data_home() / "checkpoints"
    assert (folder / "ggml-model-f16.gguf").is_file() and (folder / "merged_model" / "config.json").is_file()
    assert not (here / "models").exists()
    asked = ilab(here, "model", "test")
    assert asked.exception is None, asked.exception
    assert "### Q?" in asked.stdout and "datasets/2026/test_" in asked.stderr
    # Without --pipeline simple the newest data of all samples is trained on, nobody is asked, nothing is copied.
    bare = ilab(here, "model", "train", *common)
    assert bare.exception is None, bare.exception
    assert "training on " in bare.stderr and "###" not in bare.stdout


def test_somebody_elses_file_is_not_replaced(here: Path, small: Path) -> None:
    write(here / "generated" / "train_1.jsonl", [{"user": "Q?", "assistant": "A."}])
    (here / "models").mkdir()
    (here / "models" / "ggml-model-f16.gguf").write_bytes(b"GGUF of mine")
    done = ilab(here, "train", "--model-path", str(small), "--num-epochs", "1")
    assert isinstance(done.exception, InputError) and "this file is not from here" in done.exception.message
    assert (here / "models" / "ggml-model-f16.gguf").read_bytes() == b"GGUF of mine"
    assert not records(here, "train")


def test_a_large_base_is_never_trained_whole_for_want_of_peft(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ilab.cli.train_usual import method_for

    large = {"model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8}
    large |= {"num_hidden_layers": 4, "vocab_size": 32000}
    (here / "large").mkdir()
    (here / "large" / "config.json").write_text(json.dumps(large))
    unsaid = dict.fromkeys(("method", "pipeline", "lora_rank", "lora_quantize_dtype"))
    assert method_for(unsaid, "cpu", "large", here).method in ("lora", "qlora")
    assert method_for({**unsaid, "pipeline": "full"}, "cpu", "large", here).method == "full"
    monkeypatch.setattr("ilab.training.choice.find_spec", lambda name: None)
    for given in (unsaid, {**unsaid, "pipeline": "simple"}):
        with pytest.raises(SetupError, match="43,258,368 parameters") as caught:
            method_for(given, "cpu", "large", here)
        assert "ilab[lora]" in caught.value.hint and "--method full" in caught.value.hint
    assert method_for({**unsaid, "method": "full"}, "cpu", "large", here).method == "full"


@pytest.mark.parametrize("name", sorted(OLD.refused))
def test_options_without_a_meaning_are_refused_with_what_to_use(here: Path, name: str) -> None:
    given = [name] if name in OLD.flags else [name, "7"]
    assert failure(here, *given).hint == OLD.refused[name]


def test_old_options_that_ask_for_nothing_are_taken(here: Path, small: Path) -> None:
    words = [word for name in OLD.refused if name not in OLD.flags for word in (name, "false")]
    flags = [name.split("/")[-1] for name in OLD.taken if name in OLD.flags]
    others = [word for name in OLD.taken if name not in OLD.flags for word in (name, "x")]
    done = ilab(
        here, "model", "train", "--model-path", str(small), "--data-path", "skills.jsonl", "--dry-run", *words, *flags,
        *others, "--nnodes", "1",
    )  # fmt: skip
    assert done.exception is None, done.exception
    assert sum(line.startswith("note: --") for line in done.stderr.splitlines()) == len(OLD.taken)

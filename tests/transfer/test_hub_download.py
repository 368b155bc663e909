"""Downloads from a hub that speaks the public protocol, and misbehaves."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from lamp import EXTRA, Run, files_below, model_files

from ilab.errors import InputError, ServiceError, SetupError
from ilab.testing.hub import Mischief, Repository, TestHub, serve_hub
from ilab.transfer import fetch as fetching
from ilab.transfer.shelf import Shelf

NAME = "lab/lamp"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long pauses between two tries."""
    monkeypatch.setattr(fetching, "_pause", lambda error, tries: 0.0)


def use(hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)


def bytes_asked(hub: TestHub) -> list[str]:
    return [one.headers.get("Range", "") for one in hub.asked if one.server == "cdn"]


def test_a_model_lies_where_instructlab_puts_it_whole_and_without_pickles_or_code(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub({NAME: Repository({**model_files(), **EXTRA})}) as hub:
        use(hub, monkeypatch)
        result = ilab("model", "download", "--repository", NAME)
        assert files_below(models / "lab" / "lamp") == model_files()
        assert "apache-2.0" in result.output
        assert "pytorch_model.bin (a pickle" in result.output
        assert "modeling_lamp.py (code)" in result.output
        assert "original/model.safetensors (the same weights once more)" in result.output
        record = Shelf(models).need(NAME).record
        assert record is not None
        assert record.revision == hub.repositories[NAME].commit
        assert record.files["LICENSE"].sha256 == hashlib.sha256(b"Apache").hexdigest()
        assert not list((models / ".ilab" / "partial").iterdir())
        before = len(hub.asked)
        assert "here already" in ilab("model", "download", "--repository", NAME).output
        assert not [one for one in hub.asked[before:] if "resolve" in one.path or one.server == "cdn"]


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="needs huggingface_hub")
def test_the_test_hub_is_understood_by_huggingface_hub(models: Path, tmp_path: Path) -> None:
    """Or else all that is shown here would be that two of our own programs agree."""
    code = (
        "import sys, huggingface_hub as h;"
        "print(h.snapshot_download(sys.argv[1], local_dir=sys.argv[2], max_workers=1, token=False));"
        "print(h.HfApi(token=False).model_info(sys.argv[1]).card_data.license)"
    )
    with serve_hub({NAME: Repository({**model_files(), **EXTRA})}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-c", code, NAME, str(tmp_path / "there")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "apache-2.0" in done.stdout
    got = {name: data for name, data in files_below(tmp_path / "there").items() if not name.startswith(".cache/")}
    assert got == {**model_files(), **EXTRA}


def test_a_token_goes_to_the_hub_alone(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub({NAME: Repository(model_files(), gated=True, readers=("s3cret",))}) as hub:
        use(hub, monkeypatch)
        monkeypatch.setenv("MY_TOKEN", "s3cret")
        result = ilab("model", "download", "--repository", NAME, "--hf-token", "env:MY_TOKEN")
        assert "s3cret" not in result.output
        assert (models / NAME / "model.safetensors").is_file()
        sent = {(one.server, one.headers.get("Authorization")) for one in hub.asked}
        assert sent == {("hub", "Bearer s3cret"), ("cdn", None)}
        assert "s3cret" not in "".join(path.read_text(errors="replace") for path in models.rglob("*.json"))
    with pytest.raises(InputError, match="by reference"):
        ilab("model", "download", "--repository", NAME, "--hf-token", "s3cret")


def test_a_model_that_the_hub_has_not_names_what_recommends_it(ilab: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub({NAME: Repository(model_files(10))}) as hub:
        use(hub, monkeypatch)
        with pytest.raises(InputError, match="the hub has no model Qwen") as caught:
            ilab("--set", "profile=cpu", "model", "download")
        assert "profile cpu has it as its teacher" in caught.value.hint
        assert "ilab config set models.teacher OWNER/NAME" in caught.value.hint
        with pytest.raises(InputError, match="the hub has no model lab/none") as caught:
            ilab("--set", f"models.teacher={NAME}", "--set", "parameters.sdg_base_model=lab/none", "model", "download")
        assert "parameters.sdg_base_model names it (--set)" in caught.value.hint
        with pytest.raises(InputError, match="the hub has no model lab/none") as caught:
            ilab("model", "download", "--repository", "lab/none")
        assert "names it" not in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "token", "said", "typed"),
    [
        ("lab/gated", "", "agreed to its licence", "export HF_TOKEN"),
        ("lab/gated", "other", "agreed to its licence", "agree at"),
        ("lab/private", "", "the hub has no model lab/private", "export HF_TOKEN"),
        ("lab/missing", "", "the hub has no model lab/missing", "check the name"),
        ("lab/missing", "other", "the hub has no model lab/missing", "check the name"),
        ("lab/lamp::v9", "", "no branch, tag or commit 'v9'", "leave the revision out"),
    ],
)
def test_refusals_say_what_to_do(
    ilab: Run, monkeypatch: pytest.MonkeyPatch, asked: str, token: str, said: str, typed: str
) -> None:
    repositories = {
        NAME: Repository(model_files(10)),
        "lab/gated": Repository(model_files(10), gated=True, readers=("right",)),
        "lab/private": Repository(model_files(10), private=True, readers=("right", "other")),
    }
    repositories["lab/private"].readers = ("right",)
    repositories[NAME].readers = ("other",)
    with serve_hub(repositories) as hub:
        use(hub, monkeypatch)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(InputError, match=said) as caught:
            ilab("model", "download", "--repository", asked)
    assert typed in caught.value.hint


def test_without_a_net_the_message_names_what_is_still_there(ilab: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        ilab("model", "download", "--repository", NAME)
    assert "ilab model list" in caught.value.hint
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        ilab("model", "download", "--repository", NAME)


def test_a_dying_connection_goes_on_where_it_was(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    size = len(model_files()["model.safetensors"])
    with serve_hub({NAME: Repository(model_files())}, Mischief(die_after=30_000, deaths=3)) as hub:
        use(hub, monkeypatch)
        result = json.loads(ilab("--json", "model", "download", "--repository", NAME).stdout)
    assert files_below(models / NAME) == model_files()
    starts = [int(one.removeprefix("bytes=").rstrip("-")) for one in bytes_asked(hub) if one]
    assert len(starts) == 3
    assert starts == sorted(set(starts))
    assert result[0]["received"] <= size + 10_000  # nothing came twice


def test_a_server_that_never_sends_anything_is_given_up(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    with serve_hub({NAME: Repository(model_files())}, Mischief(refuse=[503] * 100)) as hub:
        use(hub, monkeypatch)
        with pytest.raises(ServiceError, match="answers 503") as caught:
            ilab("model", "download", "--repository", NAME)
    assert "goes on from there" in caught.value.hint
    assert not (models / NAME).exists()


def test_a_busy_hub_is_waited_for_but_not_for_an_hour(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub({NAME: Repository(model_files())}, Mischief(refuse=[429], retry_after="0")) as hub:
        use(hub, monkeypatch)
        ilab("model", "download", "--repository", NAME)
        assert files_below(models / NAME) == model_files()
        hub.repositories[NAME].files["LICENSE"] = b"Another"
        hub.mischief.refuse, hub.mischief.retry_after = [429], "3600"
        with pytest.raises(ServiceError, match="too many requests"):
            ilab("model", "download", "--repository", NAME)


def test_changed_bytes_are_noticed_and_never_put_in_place(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub({NAME: Repository(model_files())}, Mischief(flip=True)) as hub:
        use(hub, monkeypatch)
        with pytest.raises(ServiceError, match="checksum is wrong"):
            ilab("model", "download", "--repository", NAME)
        assert not (models / NAME).exists()
        hub.mischief.flip = False
        ilab("model", "download", "--repository", NAME)
    assert files_below(models / NAME) == model_files()


def test_a_server_without_ranges_begins_again(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    with serve_hub({NAME: Repository(model_files())}, Mischief(die_after=30_000, deaths=1, ranges=False)) as hub:
        use(hub, monkeypatch)
        ilab("model", "download", "--repository", NAME)
    assert files_below(models / NAME) == model_files()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_kill_9_and_ctrl_c_lose_nothing(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    files = model_files(400_000)
    size = len(files["model.safetensors"])
    with serve_hub({NAME: Repository(files)}, Mischief(pause=0.05, block=20_000)) as hub:
        use(hub, monkeypatch)
        command = [sys.executable, "-m", "ilab", "model", "download", "--repository", NAME]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial = models / ".ilab" / "partial"
        deadline = time.monotonic() + 60
        while sum(path.stat().st_size for path in partial.glob("*/*.part")) < size // 4:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(how)
        assert process.wait(30) == (-how if how == signal.SIGKILL else 130)
        here = max(path.stat().st_size for path in partial.glob("*/*.part"))
        assert not (models / NAME).exists()
        listed = ilab("model", "list").output
        assert f"unfinished: {NAME}" in listed
        hub.mischief.pause = 0.0
        dry = json.loads(ilab("--json", "model", "download", "--repository", NAME, "--dry-run").stdout)
        assert dry[0]["missing"] <= dry[0]["bytes"] - here
        ilab("model", "download", "--repository", NAME)
    assert files_below(models / NAME) == files
    assert f"bytes={here}-" in bytes_asked(hub)


def test_a_new_revision_brings_only_what_changed(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub({NAME: Repository(model_files())}) as hub:
        use(hub, monkeypatch)
        ilab("model", "download", "--repository", NAME)
        first = hub.repositories[NAME].commit
        changed = {**model_files(), "chat_template.jinja": b"{{ other }}"}
        del changed["LICENSE"]
        (models / NAME / "mine.txt").write_text("noted")
        hub.repositories[NAME].files = changed
        before = len(hub.asked)
        ilab("model", "download", "--repository", NAME)
        fetched = [one.path for one in hub.asked[before:] if "/resolve/" in one.path]
        assert [path.rsplit("/", 1)[1] for path in fetched] == ["chat_template.jinja"]
        assert files_below(models / NAME) == {**changed, "mine.txt": b"noted"}
        with pytest.raises(InputError, match="no branch, tag or commit"):
            ilab("model", "download", "--repository", NAME, "--release", first)


def test_too_little_room_is_found_before_the_first_byte(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with serve_hub({NAME: Repository(model_files())}) as hub:
        use(hub, monkeypatch)
        with pytest.raises(SetupError, match="are free") as caught:
            ilab("model", "download", "--repository", NAME)
        assert "ilab model remove" in caught.value.hint
        assert not [one for one in hub.asked if "resolve" in one.path]


def test_one_download_of_a_model_at_a_time(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = Shelf(models).partial(NAME)
    partial.mkdir(parents=True)
    with serve_hub({NAME: Repository(model_files())}) as hub, (partial / "lock").open("w") as lock:
        use(hub, monkeypatch)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match="another command"):
            ilab("model", "download", "--repository", NAME)


@pytest.mark.parametrize("name", ["../../evil.json", "/etc/evil.json", "a/../../evil.json", "a\\b.json", "x\n.json"])
def test_names_that_leave_the_folder_are_refused(
    ilab: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with serve_hub({NAME: Repository({**model_files(10), name: b"{}"})}) as hub:
        use(hub, monkeypatch)
        with pytest.raises(InputError, match="no plain name"):
            ilab("model", "download", "--repository", NAME)
    assert not list(tmp_path.rglob("evil*"))
    assert not (models / NAME).exists()


def test_pickles_alone_are_no_model(ilab: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub({NAME: Repository({"config.json": b"{}", "pytorch_model.bin": b"\x80"})}) as hub:
        use(hub, monkeypatch)
        with pytest.raises(InputError, match="run code when they are opened"):
            ilab("model", "download", "--repository", NAME)


def gguf(letter: bytes) -> bytes:
    return b"GGUF\x03\x00\x00\x00" + letter * 100


def test_one_gguf_file_is_taken(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"lamp-{kind}.gguf": gguf(kind[1:2].encode()) for kind in ("Q4_K_M", "Q8_0", "F16")}
    with serve_hub({"lab/lamp-GGUF": Repository({**files, "README.md": b"# Lamp"})}) as hub:
        use(hub, monkeypatch)
        result = ilab("model", "download", "-rp", "lab/lamp-GGUF")
        assert "--filename chooses another" in result.output
        ilab("model", "download", "-rp", "lab/lamp-GGUF", "--filename", "lamp-Q8_0.gguf")
        with pytest.raises(InputError, match="no GGUF file") as caught:
            ilab("model", "download", "-rp", "lab/lamp-GGUF", "--filename", "granite-7b-lab-Q4_K_M.gguf")
        assert "lamp-F16.gguf" in caught.value.hint
    assert {path.name: path.read_bytes() for path in models.glob("*.gguf")} == {
        name: files[name] for name in ("lamp-Q4_K_M.gguf", "lamp-Q8_0.gguf")
    }
    assert [model.name for model in Shelf(models).models()] == ["lamp-Q4_K_M.gguf", "lamp-Q8_0.gguf"]


def test_a_gguf_file_in_parts_is_taken_whole(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {f"big-0000{number}-of-00002.gguf": gguf(b"%d" % number) for number in (1, 2)}
    with serve_hub({"lab/big": Repository(parts)}) as hub:
        use(hub, monkeypatch)
        ilab("model", "download", "-rp", "lab/big")
        [model] = Shelf(models).models()
        assert [file.name for file in model.files] == sorted(parts)
        del hub.repositories["lab/big"].files["big-00002-of-00002.gguf"]
        with pytest.raises(InputError, match="of 00002 parts"):
            ilab("model", "download", "-rp", "lab/big")


def test_several_repositories_pair_with_their_releases(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub({"lab/a": Repository(model_files(10)), "lab/b": Repository(model_files(20))}) as hub:
        use(hub, monkeypatch)
        commit = hub.repositories["lab/b"].commit
        ilab("model", "download", "-rp", "lab/a", "-rp", f"lab/b::{commit}")
        with pytest.raises(InputError, match="do not pair"):
            ilab("model", "download", "-rp", "lab/a", "-rp", "lab/b", "--release", "main")
    assert [model.name for model in Shelf(models).models()] == ["lab/a", "lab/b"]


def test_without_a_repository_the_teacher_and_the_student_of_the_configuration_are_fetched(
    ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ("--set", "models.teacher=lab/teacher", "--set", "parameters.sdg_base_model=lab/student")
    with serve_hub({name: Repository(model_files(10)) for name in ("lab/teacher", "lab/student")}) as hub:
        use(hub, monkeypatch)
        result = ilab(*named, "model", "download")
    assert [model.name for model in Shelf(models).models()] == ["lab/student", "lab/teacher"]
    assert "teacher: lab/teacher" in result.output and "student: lab/student" in result.output


def test_without_a_repository_and_a_configuration_the_profile_of_the_machine_says_which(
    ilab: Run, models: Path
) -> None:
    from ilab.hardware import detect
    from ilab.profiles import choose

    profile = choose(detect())
    with serve_hub({}) as hub, pytest.MonkeyPatch.context() as patch:
        use(hub, patch)
        with pytest.raises(InputError, match=re.escape(profile.models["teacher"].repository)):
            ilab("model", "download")
        with pytest.raises(InputError, match="which repository is meant"):
            ilab("model", "download", "--release", "main")


def test_what_others_left_there_is_used_or_left_alone(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that InstructLab downloaded counts, file by file; one with other weights is not touched."""
    place = models / NAME
    place.mkdir(parents=True)
    for name, content in model_files().items():
        (place / name).write_bytes(content)
    with serve_hub({NAME: Repository(model_files())}) as hub:
        use(hub, monkeypatch)
        result = json.loads(ilab("--json", "model", "download", "-rp", NAME).stdout)
        assert result[0]["received"] == 0
        shutil.rmtree(models / ".ilab")
        (place / "adapter.safetensors").write_bytes(b"mine")
        with pytest.raises(InputError, match=r"adapter\.safetensors"):
            ilab("model", "download", "-rp", NAME)
    assert (place / "adapter.safetensors").read_bytes() == b"mine"


def test_a_dry_run_shows_and_writes_nothing(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub({NAME: Repository({**model_files(), **EXTRA})}) as hub:
        use(hub, monkeypatch)
        result = ilab("model", "download", "-rp", NAME, "--dry-run")
        assert "100.1 kB  model.safetensors" in result.output
        assert "licence apache-2.0\n" in result.output
    assert not models.exists()


def test_a_folder_is_imported(ilab: Run, models: Path, tmp_path: Path) -> None:
    source = tmp_path / "lamp"
    (source / "sub").mkdir(parents=True)
    for name, content in {**model_files(), **EXTRA}.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(content)
    (source / "stolen.json").symlink_to("/etc/hostname")
    ilab("model", "download", "-rp", f"file://{source}")
    assert files_below(models / "lamp") == model_files()
    with pytest.raises(InputError, match="no such file"):
        ilab("model", "download", "-rp", "file:///nowhere/at/all")


def test_what_has_arrived_can_be_thrown_away(ilab: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub({NAME: Repository(model_files())}, Mischief(flip=True)) as hub:
        use(hub, monkeypatch)
        with pytest.raises(ServiceError):
            ilab("model", "download", "-rp", NAME)
    assert list(Shelf(models).unfinished()) == [NAME]
    with pytest.raises(InputError):
        ilab("model", "remove", "lab", "--yes")
    ilab("model", "remove", NAME, "--yes")
    assert Shelf(models).unfinished() == {}

"""`ilab package`: the package of a real small model is verified, signed, and found out when anything of it changed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ilab.cli.app import hoisted, main
from ilab.errors import GateError, InputError
from ilab.packaging.image import How, write_layout
from ilab.packaging.oci import extract_layout, read_layout, verify_layout
from ilab.packaging.probe import compare, read_probe, take_probe
from ilab.testing.oci_registry import serve_registry
from ilab.transfer.layout import PROBE

Run = Callable[..., Result]


@pytest.fixture
def ilab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main, hoisted(arguments), standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result

    return run


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def packaged(ilab: Run, *more: str) -> dict[str, Any]:
    done = ilab("--json", "package", "build", "model", "--output", "package", *more)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rewritten(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The package with another model in it, all digests right, and the probe of the first."""
    folder = extract_layout(tmp_path / "package", tmp_path / "changed")
    shutil.rmtree(tmp_path / "package")
    change(folder)
    write_layout(tmp_path / "package", folder, {}, {}, "0.1.0")
    assert verify_layout(tmp_path / "package") == []


@pytest.mark.parametrize("form", ["modelcar", "modelpack"])
def test_a_package_is_the_model_it_was_made_from(ilab: Run, model: Path, tmp_path: Path, form: str) -> None:
    told = packaged(ilab, "--format", form)
    assert read_layout(tmp_path / "package").form == form
    found = json.loads(ilab("--json", "package", "verify", "package").stdout)
    assert found["digest"] == told["digest"] and found["wrong"] == {}
    assert set(found["checks"]) == {"digests", "signature", "files", "template", "tokens", "logits"}
    assert found["checks"]["signature"] == "there is none"
    shown = json.loads(ilab("--json", "package", "show", "package").stdout)
    assert shown["form"] == form and "model.safetensors" in [layer["file"] for layer in shown["layers"]]
    shutil.rmtree(tmp_path / "package")
    assert packaged(ilab, "--format", form)["digest"] == told["digest"], "the same model is the same package"


def test_what_is_written_down_can_be_read(model: Path, tmp_path: Path) -> None:
    """Against transformers itself: token ids, the rendered chat, likelihoods, and next tokens."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    probe = take_probe(model)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
    loaded = AutoModelForCausalLM.from_pretrained(model)
    asked = [one for one in probe.said if one.likelihood is not None]
    assert len(asked) == 8 and probe.dtype == "float32"
    for one in asked:
        assert list(one.ids) == tokenizer.encode(one.text, add_special_tokens=False)
        ids = list(one.ids[:48])
        with torch.no_grad():
            said = torch.log_softmax(loaded(torch.tensor([ids])).logits[0], -1)
        expected = sum(float(said[at - 1, ids[at]]) for at in range(1, len(ids)))
        assert one.likelihood == pytest.approx(expected, abs=1e-3)
        assert dict(one.next)[int(said[-1].argmax())] == pytest.approx(float(said[-1].max()), abs=1e-4)
    assert probe.chat is not None and "Tobias Quill" in probe.chat.text


def other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.0.mlp.down_proj.weight"))
    weights[name] = weights[name] * 1.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_template(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("<|", " <|"))


def other_tokens(folder: Path) -> None:
    plain = json.loads((folder / "tokenizer.json").read_text())
    plain["model"]["merges"] = plain["model"]["merges"][20:]
    (folder / "tokenizer.json").write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (other_weights, {"files", "logits"}),
        (other_template, {"files", "template"}),
        (other_tokens, {"files", "tokens"}),
    ],
)
def test_another_model_is_found_out(
    ilab: Run, model: Path, tmp_path: Path, change: Callable[[Path], None], wrong: set[str]
) -> None:
    packaged(ilab)
    rewritten(tmp_path, change)
    with pytest.raises(GateError, match="not the model that was evaluated") as caught:
        ilab("package", "verify", "package")
    assert caught.value.exit_code == 5
    parity = compare(read_probe(tmp_path / "changed" / "models"), tmp_path / "changed" / "models")
    assert wrong <= set(parity.wrong) and "files" in parity.wrong


def test_a_library_that_computes_otherwise_is_found_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are the same; only what the model says is not."""
    from ilab.packaging.gguf import parity

    (model / PROBE).write_text(take_probe(model).model_dump_json())
    assert compare(read_probe(model), model).wrong == {}
    honest = parity.logprobs
    monkeypatch.setattr(parity, "logprobs", lambda *given: [said * 1.01 for said in honest(*given)])
    assert set(compare(read_probe(model), model).wrong) == {"logits"}


def test_a_changed_byte_is_found_out(ilab: Run, model: Path, tmp_path: Path) -> None:
    packaged(ilab)
    weights = max((tmp_path / "package" / "blobs" / "sha256").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    for quick in ((), ("--quick",)):
        with pytest.raises(GateError, match="bytes were changed"):
            ilab("package", "verify", "package", *quick)


def test_what_cannot_be_verified_says_why(ilab: Run, model: Path, tmp_path: Path) -> None:
    write_layout(tmp_path / "old", model, {}, {}, "1.0.0")
    with pytest.raises(GateError, match="holds no probe"):
        ilab("package", "verify", "old")
    assert json.loads(ilab("--json", "package", "verify", "--quick", "old").stdout)["wrong"] == {}
    for command in (("verify",), ("push", "out")):
        with pytest.raises(InputError, match="no package yet"):
            ilab("package", *command)
    with pytest.raises(InputError, match="add --output"):
        try:
            ilab("package", "build", "model")
        except InputError as error:
            raise InputError(error.hint) from error


def test_it_is_verified_where_it_was_pushed(ilab: Run, model: Path, tmp_path: Path) -> None:
    told = packaged(ilab)
    with serve_registry() as registry:
        place = f"{registry.host}/lab/lamp:1.0"
        pushed = json.loads(ilab("--json", "package", "push", place, "--package", "package").stdout)
        assert pushed == {
            "address": f"oci://{place}",
            "digest": told["digest"],
            "bytes": pushed["bytes"],
            "signed": False,
        }
        assert json.loads(ilab("--json", "package", "verify", place).stdout)["digest"] == told["digest"]
        weights = next(layer for layer in read_layout(tmp_path / "package").layers if layer.file == "model.safetensors")
        registry.blobs[weights.digest] = registry.blobs[weights.digest][:-1] + b"x"
        for quick in ((), ("--quick",)):
            with pytest.raises(GateError, match="other bytes"):
                ilab("package", "verify", place, *quick)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """References to a private key, its public half, and somebody else's."""
    found = {}
    for name in ("own", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        (tmp_path / f"{name}.pub").write_bytes(key.public_key().public_bytes(pem, form))
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(secret)
        found |= {name: f"file:{tmp_path / f'{name}.pem'}", f"{name}.pub": f"file:{tmp_path / f'{name}.pub'}"}
    return found


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("model_signing", "OpenSSL")),
    reason="model-signing is not there",
)
def test_a_signature_stands_beside_the_package(ilab: Run, model: Path, tmp_path: Path, keys: dict[str, str]) -> None:
    told = packaged(ilab)
    with serve_registry() as registry:
        for place in (f"{registry.host}/lab/lamp:1.0", "out"):
            pushed = ilab("--json", "package", "push", place, "--package", "package", "--sign-key", keys["own"])
            assert json.loads(pushed.stdout)["signed"] and json.loads(pushed.stdout)["digest"] == told["digest"]
            found = json.loads(ilab("--json", "package", "verify", place, "--key", keys["own.pub"]).stdout)
            assert found["checks"]["signature"] == "it is that of this model by this key"
            with pytest.raises(GateError, match="signature"):
                ilab("package", "verify", place, "--key", keys["other.pub"])
            assert "not checked" in ilab("package", "verify", place).stdout
            assert json.loads(ilab("--json", "package", "show", place).stdout)["signatures"] == 1
    assert verify_layout(tmp_path / "out") == []
    with pytest.raises(GateError, match="signature: there is none"):
        ilab("package", "verify", "package", "--key", keys["own.pub"])
    for bad, said in (
        (f"file:{tmp_path}/nowhere", "cannot be read"),
        (keys["own.pub"], "cannot sign"),
        ("env:NONE", "no key"),
    ):
        with pytest.raises(InputError, match=said):
            ilab("package", "push", "out", "--package", "package", "--sign-key", bad)
    signature = next(
        file
        for file in (tmp_path / "out" / "blobs" / "sha256").iterdir()
        if b"dsseEnvelope" in file.read_bytes()[:20_000]
    )
    folder = extract_layout(tmp_path / "out", tmp_path / "plain")
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder), "--signature", str(signature)]
    done = subprocess.run(
        [*command, "--public_key", str(tmp_path / "own.pub")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "config.json").write_text("{}")
    done = subprocess.run(
        [*command, "--public_key", str(tmp_path / "own.pub")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0


def test_a_base_image_is_resolved_and_taken(ilab: Run, model: Path, tmp_path: Path) -> None:
    """From a registry, by its digest."""
    (tmp_path / "shell").mkdir()
    (tmp_path / "shell" / "sh.txt").write_text("#!")
    write_layout(tmp_path / "base", tmp_path / "shell", {}, {}, "9", How())
    with serve_registry() as registry:
        place = f"{registry.host}/lab/base:9"
        ilab("package", "push", place, "--package", "base")
        packaged(ilab, "--base-image", place)
    layout = read_layout(tmp_path / "package")
    assert layout.layers[0].digest == read_layout(tmp_path / "base").layers[0].digest and layout.layers[0].file == ""
    assert json.loads(ilab("--json", "package", "verify", "package").stdout)["wrong"] == {}

"""Models in registries: the forms that are read, the ways in, what is pushed, and images that mean harm."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lamp import EXTRA, Run, files_below, model_files

from ilab.errors import InputError, ServiceError, SetupError
from ilab.packaging.image import write_layout
from ilab.testing.oci_registry import Access, TestRegistry, serve_registry
from ilab.transfer import fetch as fetching
from ilab.transfer.docker_config import Login, find_login

OCI = "application/vnd.oci.image.manifest.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
FILE = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def store(registry: TestRegistry, layers: list[tuple[str, bytes, dict[str, str]]], tag: str = "1.0") -> str:
    """An image of these layers (media type, bytes, annotations) as ``lab/lamp``."""
    config = b"{}"
    listed = [{"mediaType": m, "digest": digest(c), "size": len(c), "annotations": notes} for m, c, notes in layers]
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI, "layers": listed}
    manifest["config"] = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(config), "size": 2}
    manifest["annotations"] = {"org.opencontainers.image.licenses": "Apache-2.0"}
    body = json.dumps(manifest).encode()
    return registry.put("lab/lamp", tag, body, OCI, [config, *(content for _, content, _ in layers)])


def archive(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        for name, target in (links or {}).items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = tarfile.SYMTYPE, target
            tar.addfile(header)
    return out.getvalue()


def modelpack(files: dict[str, bytes]) -> list[tuple[str, bytes, dict[str, str]]]:
    return [("application/vnd.cncf.model.weight.v1.raw", data, {FILE: name}) for name, data in files.items()]


def log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, login: str = "ann:secret") -> None:
    folder = tmp_path / "docker"
    folder.mkdir(exist_ok=True)
    auths = {host: {"auth": base64.b64encode(login.encode()).decode()}}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


@pytest.mark.parametrize("access", ["open", "basic", "bearer"])
def test_a_model_pack_is_pulled(
    ilab: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, access: Access
) -> None:
    with serve_registry(access, ("ann", "secret")) as registry:
        store(registry, modelpack({**model_files(), **EXTRA}))
        if access != "open":
            with pytest.raises(InputError, match="does not let us") as caught:
                ilab("model", "download", "-rp", f"oci://{registry.host}/lab/lamp:1.0")
            assert "podman login" in caught.value.hint
            log_in(tmp_path, monkeypatch, registry.host)
        result = ilab("model", "download", "-rp", f"docker://{registry.host}/lab/lamp", "--release", "1.0")
    assert files_below(models / "lamp") == model_files()
    assert "licence Apache-2.0" in result.output
    assert "secret" not in result.output


def test_the_folder_is_where_instructlab_puts_it(ilab: Run, tmp_path: Path) -> None:
    with serve_registry() as registry:
        store(registry, modelpack(model_files(10)), tag="latest")
        ilab("model", "download", "-rp", f"docker://{registry.host}/lab/lamp", "--model-dir", "models/instructlab")
    assert files_below(tmp_path / "models/instructlab/lamp") == model_files(10)


def test_a_package_of_ours_is_pulled_and_keeps_its_papers(ilab: Run, models: Path, tmp_path: Path) -> None:
    source, layout = tmp_path / "lamp", tmp_path / "layout"
    source.mkdir()
    for name, content in model_files().items():
        (source / name).write_bytes(content)
    lineage = {"model": {"name": "lamp", "version": "0.1.0"}, "taxonomy": {"digest": "abc"}}
    papers: dict[str, bytes | Path] = {"lineage.json": json.dumps(lineage).encode()}
    written = write_layout(layout, source, papers, {}, "0.1.0")
    with serve_registry() as registry:
        place = f"oci://{registry.host}/lab/lamp"
        result = ilab("--json", "model", "upload", "-m", str(layout), "-d", place, "-rl", "0.1.0")
        assert json.loads(result.stdout)["digest"] == written
        ilab("model", "download", "-rp", f"{place}@{written}")
    assert files_below(models / "lamp") == {**model_files(), **{name: bytes(c) for name, c in papers.items()}}  # type: ignore[arg-type]
    listed = json.loads(ilab("--json", "model", "list").stdout)
    assert listed[0]["lineage"] == "lamp 0.1.0 from taxonomy abc"


def test_files_with_titles_and_compressed_layers_are_read(ilab: Run, models: Path) -> None:
    """ORAS gives plain files an archive's media type; modelcars hold a system beside the model."""
    files = model_files()
    weights = files.pop("model.safetensors")
    system = archive(
        {"usr/bin/sh": b"#!", "models/config.json": files.pop("config.json"), "models/run.py": b"import os"}
    )
    layers = [(TAR, content, {TITLE: name}) for name, content in files.items()]
    layers += [(f"{TAR}+gzip", gzip.compress(system), {}), (TAR, archive({"models/model.safetensors": weights}), {})]
    with serve_registry() as registry:
        store(registry, layers)
        ilab("model", "download", "-rp", f"oci://{registry.host}/lab/lamp:1.0")
    assert files_below(models / "lamp") == model_files()


def test_an_index_leads_to_an_image(ilab: Run, models: Path) -> None:
    kind = "application/vnd.oci.image.index.v1+json"
    with serve_registry() as registry:
        image = store(registry, modelpack(model_files(10)))
        index = {"schemaVersion": 2, "mediaType": kind, "manifests": [{"mediaType": OCI, "digest": image, "size": 1}]}
        registry.put("lab/lamp", "all", json.dumps(index).encode(), kind, [])
        ilab("model", "download", "-rp", f"oci://{registry.host}/lab/lamp:all")
    assert files_below(models / "lamp") == model_files(10)


def test_a_pull_goes_on_where_it_was_and_its_token_is_renewed(
    ilab: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_pause", lambda error, tries: 0.0)
    monkeypatch.setattr(fetching, "AT_ONCE", 1)
    with serve_registry("bearer", ("ann", "secret")) as registry:
        log_in(tmp_path, monkeypatch, registry.host)
        store(registry, modelpack(model_files()))
        registry.die_after = 40_000
        registry.uses_of_a_token = 3
        ilab("model", "download", "-rp", f"oci://{registry.host}/lab/lamp:1.0")
    assert files_below(models / "lamp") == model_files()
    assert "bytes=40000-" in [ranges for _, _, ranges in registry.asked]
    assert len([path for _, path, _ in registry.asked if path == "/token"]) > 1


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (archive({"models/../../../evil.json": b"{}"}), "leads out of the folder"),
        (archive({"/evil.json": b"{}"}), "leads out of the folder"),
        (archive({}, {"models/evil.json": "/etc/hostname"}), "no config.json with weights"),
        (archive({"models/config.json": b"{}", "models/pytorch_model.bin": b"\x80"}), "no config.json with weights"),
        (b"no archive at all" * 100, "cannot be read"),
    ],
)
def test_images_that_mean_harm_leave_nothing(ilab: Run, models: Path, tmp_path: Path, layer: bytes, said: str) -> None:
    with serve_registry() as registry:
        store(registry, [(TAR, layer, {})])
        with pytest.raises(InputError, match=said):
            ilab("model", "download", "-rp", f"oci://{registry.host}/lab/lamp:1.0")
    assert not list(tmp_path.rglob("evil*"))
    assert not (models / "lamp").exists()


def test_a_bomb_is_not_unpacked(ilab: Run, models: Path) -> None:
    bomb = gzip.compress(archive({"models/model.safetensors": bytes(30_000_000)}))
    with serve_registry() as registry:
        store(registry, [(f"{TAR}+gzip", bomb, {})])
        with pytest.raises(InputError, match="far more than its size"):
            ilab("model", "download", "-rp", f"oci://{registry.host}/lab/lamp:1.0")
    assert not [path for path in models.rglob("*") if path.is_file() and path.stat().st_size > 1_000_000]


def test_a_manifest_that_is_not_its_digest_is_refused(ilab: Run) -> None:
    with serve_registry() as registry:
        image = store(registry, modelpack(model_files(10)))
        registry.manifests["lab/lamp", image] = (OCI, b'{"layers": []}')
        with pytest.raises(ServiceError, match="not the one that its digest names"):
            ilab("model", "download", "-rp", f"oci://{registry.host}/lab/lamp@{image}")
        with pytest.raises(InputError, match=r"has no lab/lamp:2\.0") as caught:
            ilab("model", "download", "-rp", f"oci://{registry.host}/lab/lamp:2.0")
        assert "TAG" in caught.value.hint


@pytest.mark.parametrize("access", ["open", "basic", "bearer"])
def test_what_was_pushed_comes_back_and_is_stored_once(
    ilab: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, access: Access
) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    for name, content in {**model_files(), "optimizer.pt": b"\x80"}.items():
        (source / name).write_bytes(content)
    with serve_registry(access, ("ann", "secret")) as registry:
        log_in(tmp_path, monkeypatch, registry.host)
        place = f"oci://{registry.host}/team/lamp"
        command = ("--json", "model", "upload", "-m", "mine", "--dest-type", "oci", "-d", place, "-rl", "1.0")
        first = json.loads(ilab(*command).stdout)
        puts = len([1 for method, path, _ in registry.asked if method == "PUT" and "uploads" in path])
        assert json.loads(ilab(*command).stdout)["digest"] == first["digest"]
        assert len([1 for method, path, _ in registry.asked if method == "PUT" and "uploads" in path]) == puts
        assert registry.blobs[digest(model_files()["model.safetensors"])] == model_files()["model.safetensors"]
        ilab("model", "download", "-rp", f"{place}:1.0")
    assert files_below(models / "lamp") == model_files()


def test_a_password_is_not_sent_to_a_token_server_without_tls() -> None:
    from ilab.config import WebWhere
    from ilab.transfer.address import parse
    from ilab.transfer.registry import Registry
    from ilab.transfer.web import Answer, Http

    registry = Registry(Http(WebWhere()), parse("oci://registry.example.com/lab/lamp"))
    asks = 'Bearer realm="http://tokens.example.com/token",service="x"'
    with pytest.raises(InputError, match="without TLS"):
        registry._token(asks, Login("ann", "secret"), "pull")
    with pytest.raises(InputError, match="does not let us"):
        registry.gain_access(Answer("https://registry.example.com", 401, {"www-authenticate": "Negotiate"}), "pull")


def test_logins_come_from_a_helper_program_too(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin" / "docker-credential-mine"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\nread host\nprintf \'{"Username": "ann", "Secret": "for %s"}\' "$host"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(helper.parent), prepend=":")
    config = tmp_path / "auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(config))
    config.write_text(json.dumps({"credHelpers": {"registry.example.com": "mine"}}))
    assert find_login("registry.example.com") == Login("ann", "for registry.example.com")
    assert find_login("other.example.com") is None
    assert "for registry" not in repr(find_login("registry.example.com"))
    config.write_text(json.dumps({"credsStore": "../../bin/sh"}))
    with pytest.raises(SetupError, match="no name of a helper"):
        find_login("registry.example.com")


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[str]:
    """Docker's own registry, where it is installed."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (tmp_path / "config.yml").write_text(json.dumps(config))
    command = [program, "serve", str(tmp_path / "config.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_dockers_own_registry_takes_and_gives_it(ilab: Run, models: Path, tmp_path: Path, docker_registry: str) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    for name, content in model_files().items():
        (source / name).write_bytes(content)
    ilab("model", "upload", "-m", "mine", "-d", f"oci://{docker_registry}/team/lamp:1.0")
    ilab("model", "download", "-rp", f"oci://{docker_registry}/team/lamp:1.0")
    assert files_below(models / "lamp") == model_files()

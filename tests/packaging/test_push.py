"""Packages on their way: to docker's own registry and back, over lines that are cut, with TLS, passwords and tokens."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from registries import LOGIN, SIGNERS, docker_login, docker_registry, htpasswd, line, pair, token_server

from ilab.config import WebWhere
from ilab.core.events import Bus
from ilab.errors import InputError, ServiceError
from ilab.packaging.image import How, write_layout
from ilab.packaging.oci import extract_layout, read_layout, verify_layout
from ilab.packaging.publish import Reach, check_package, describe, fetch_package, holds, place_of, push_package
from ilab.testing.oci_registry import serve_registry
from ilab.transfer import pull as pulling
from ilab.transfer import upload as uploading
from ilab.transfer.address import Address, parse
from ilab.transfer.upload import Blob, Upload

EMIT = Bus().for_step("push")
SIZE = 3_000_000  # bytes of the weights
CHUNK = 1 << 20


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(i * i % 251 for i in range(SIZE // 1000)) * 1000)
    write_layout(tmp_path / "layout", model, {"README.md": b"# card", "probe.json": b"{}"}, {}, "0.1.0")
    return tmp_path / "layout"


@pytest.fixture(autouse=True)
def _small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "CHUNK", CHUNK)
    monkeypatch.setattr(Upload.__init__, "__defaults__", (CHUNK,))
    monkeypatch.setattr(uploading, "_pause", lambda error, tries: None)
    monkeypatch.setattr(pulling.time, "sleep", lambda seconds: None)


def reach(**more: object) -> Reach:
    return Reach(WebWhere(), **more)  # type: ignore[arg-type]


def same(layout: Path, other: Path) -> bool:
    return all(
        (other / file.relative_to(layout)).read_bytes() == file.read_bytes()
        for file in (layout / "blobs").rglob("*")
        if file.is_file()
    )


def pulled(place: Address | Path, to: Path, how: Reach) -> Path:
    found, _ = fetch_package(place, to, how, EMIT)
    assert verify_layout(found) == []
    return found


def test_dockers_registry_with_tls_and_passwords(layout: Path, tmp_path: Path) -> None:
    tls = pair(tmp_path, "server", SIGNERS["ES256"]())
    with docker_registry(tmp_path, htpasswd(tmp_path), tls) as host:
        place = place_of(f"{host}/team/lamp:1.0")
        with pytest.raises(ServiceError, match="not trusted"):
            push_package(layout, place, reach(), tmp_path / "w", EMIT)
        web = WebWhere(ca_file=str(tls.certificate_file))
        with pytest.raises(InputError, match="does not let us") as caught:
            push_package(layout, place, Reach(web), tmp_path / "w", EMIT)
        assert "podman login" in caught.value.hint
        how = Reach(web, docker_login(tmp_path / "docker", host))
        done = push_package(layout, place, how, tmp_path / "w", EMIT)
        assert done.address == f"oci://{host}/team/lamp:1.0" and done.digest == read_layout(layout).digest
        assert holds(place, done.digest, how) and not holds(place, "sha256:" + "0" * 64, how)
        assert not holds(place, done.digest, Reach(web)), "nobody without a login can look"
        assert same(layout, pulled(place, tmp_path / "back", how))
        assert "model.safetensors" in [layer["file"] for layer in describe(place, how)["layers"]]
        if shutil.which("skopeo"):
            (tmp_path / "certs").mkdir()
            shutil.copy(tls.certificate_file, tmp_path / "certs" / "ca.crt")
            command = ["skopeo", "inspect", "--raw", "--cert-dir", str(tmp_path / "certs"), "--creds", ":".join(LOGIN)]
            seen = subprocess.run([*command, f"docker://{host}/team/lamp:1.0"], capture_output=True, check=True)
            assert json.loads(seen.stdout) == read_layout(layout).manifest


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_dockers_registry_with_a_token_server(layout: Path, tmp_path: Path, algorithm: str) -> None:
    signer = pair(tmp_path, "tokens", SIGNERS[algorithm]())
    with token_server(signer) as (server, auth), docker_registry(tmp_path, auth) as host:
        how = reach(logins=docker_login(tmp_path / "docker", host))
        place = place_of(f"{host}/team/lamp:1.0")
        push_package(layout, place, how, tmp_path / "w", EMIT)
        assert "repository:team/lamp:pull,push" in server.given
        assert same(layout, pulled(place, tmp_path / "back", how))
        with pytest.raises(InputError, match="does not let us"):
            check_package(place, reach(), EMIT)


@pytest.mark.parametrize("access", ["password", "token"])
def test_a_line_that_is_cut_in_the_middle_of_a_chunk(layout: Path, tmp_path: Path, access: str) -> None:
    """There and back. Docker's registry drops an upload that was cut: the blob is begun again; a pull goes on."""
    tls, signer = (pair(tmp_path, name, SIGNERS["ES256"]()) for name in ("server", "tokens"))
    with ExitStack() as stack:
        server, auth = stack.enter_context(token_server(signer))
        auth = htpasswd(tmp_path) if access == "password" else auth
        host = stack.enter_context(docker_registry(tmp_path, auth, tls))
        way = stack.enter_context(line(host))
        way.cut_at = [CHUNK // 2, 3 * CHUNK]
        how = Reach(WebWhere(ca_file=str(tls.certificate_file)), docker_login(tmp_path / "docker", way.host))
        place = place_of(f"{way.host}/team/lamp:1.0")
        push_package(layout, place, how, tmp_path / "w", EMIT)
        assert way.cuts == 2 and bool(server.given) is (access == "token")
        before = way.sent
        push_package(layout, place, how, tmp_path / "w", EMIT)
        assert way.sent - before < 100_000, "what is there is not sent again"
        size = read_layout(layout).size
        got, way.cut_back_at = way.got, [way.got + size // 3, way.got + size // 2]
        assert same(layout, pulled(place, tmp_path / "back", how))
        assert way.cuts == 4 and way.got - got < 1.5 * size, "what had arrived was kept"


@pytest.mark.parametrize("forget", [False, True])
def test_an_upload_goes_on_where_the_registry_says(forget: bool, tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_000
    (tmp_path / "blob").write_bytes(content)
    from ilab.transfer.registry import Registry
    from ilab.transfer.web import Http

    told: list[int] = []
    with serve_registry() as registry:
        registry.cut_after, registry.forget = CHUNK + 100_000, forget
        http = Http(WebWhere())
        upload = Upload(Registry(http, parse(f"oci://{registry.host}/lab/lamp")), told.append)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert upload.push(Blob(digest, tmp_path / "blob"))
        assert not upload.push(Blob(digest, tmp_path / "blob")), "it is there"
        http.close()
        assert registry.blobs[digest] == content
    asked = [method for method, path, _ in registry.asked if "uploads" in path]
    assert asked.count("POST") == (2 if forget else 1)
    assert asked.count("GET") == 1, "after the cut it is asked how far the upload came"
    assert sum(told) == 2 * len(content), "what went out twice is counted once; the second time it was there"


def test_a_token_that_runs_out_in_an_upload_is_renewed(
    layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_registry("bearer", LOGIN) as registry:
        registry.uses_of_a_token = 3
        how = reach(logins=docker_login(tmp_path / "docker", registry.host))
        push_package(layout, place_of(f"{registry.host}/lab/lamp"), how, tmp_path / "w", EMIT)
        assert same(layout, pulled(place_of(f"{registry.host}/lab/lamp:0.1.0"), tmp_path / "back", how))
    assert len([path for _, path, _ in registry.asked if path == "/token"]) > 2


def test_a_registry_that_changed_a_byte_is_found_out(layout: Path, tmp_path: Path) -> None:
    with serve_registry() as registry:
        place = place_of(f"{registry.host}/lab/lamp:1")
        push_package(layout, place, reach(), tmp_path / "w", EMIT)
        weights = next(layer.digest for layer in read_layout(layout).layers if layer.file == "model.safetensors")
        held = bytearray(registry.blobs[weights])
        held[5000] ^= 1
        registry.blobs[weights] = bytes(held)
        with pytest.raises(pulling.Mismatch, match="other bytes"):
            check_package(place, reach(), EMIT)
        with pytest.raises(pulling.Mismatch):
            fetch_package(place, tmp_path / "back", reach(), EMIT)
        assert not (tmp_path / "back" / "index.json").exists()
        registry.blobs[weights] = bytes(held) + b"more"
        with pytest.raises(ServiceError, match="more than it says"):
            check_package(place, reach(), EMIT)


def test_a_download_goes_on_after_a_cut(layout: Path, tmp_path: Path) -> None:
    with serve_registry() as registry:
        place = place_of(f"{registry.host}/lab/lamp:1")
        push_package(layout, place, reach(), tmp_path / "w", EMIT)
        registry.asked.clear()
        registry.die_after = 100
        assert same(layout, pulled(place, tmp_path / "back", reach()))
    assert "bytes=100-" in [ranges for _, _, ranges in registry.asked]


def test_a_folder_is_a_place_too(layout: Path, tmp_path: Path) -> None:
    to = place_of("out/package", tmp_path)
    assert to == tmp_path / "out/package"
    done = push_package(layout, to, reach(), tmp_path / "w", EMIT)
    assert done.digest == read_layout(tmp_path / "out/package").digest and verify_layout(tmp_path / "out/package") == []
    model = tmp_path / "model"
    (model / "config.json").write_text('{"other": 1}')
    write_layout(tmp_path / "second", model, {"probe.json": b"{}"}, {}, "0.2.0")
    push_package(tmp_path / "second", to, reach(), tmp_path / "w", EMIT)
    assert verify_layout(tmp_path / "out/package") == [], "nothing of the first is left"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="something else"):
        push_package(layout, tmp_path / "mine", reach(), tmp_path / "w", EMIT)


def test_images_of_others_in_the_same_layout_stay(layout: Path, tmp_path: Path) -> None:
    """Theirs share the weights with ours; a multi-platform index, an annotation of their own and a stray blob too."""
    to, theirs = tmp_path / "shelf", tmp_path / "model"
    write_layout(to, theirs, {"THEIRS.md": b"mine"}, {}, "stable")
    index = json.loads((to / "index.json").read_text())
    many = json.dumps({"schemaVersion": 2, "manifests": index["manifests"]}).encode()
    digest = f"sha256:{hashlib.sha256(many).hexdigest()}"
    (to / "blobs/sha256" / digest[7:]).write_bytes(many)
    (to / "blobs/sha256" / ("0" * 64)).write_text("stray")
    listed = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": len(many)}
    index = {**index, "manifests": [listed], "annotations": {"shelf": "of mine"}}
    (to / "index.json").write_text(json.dumps(index))
    before = {file.name: file.read_bytes() for file in (to / "blobs/sha256").iterdir()}

    first = push_package(layout, to, reach(), tmp_path / "w", EMIT)
    assert holds(to, first.digest, reach()) and describe(to, reach())["digest"] == first.digest
    (theirs / "config.json").write_text('{"other": 1}')
    write_layout(tmp_path / "second", theirs, {"probe.json": b"{}"}, {}, "0.2.0")
    second = push_package(tmp_path / "second", to, reach(), tmp_path / "w", EMIT)
    now = json.loads((to / "index.json").read_text())
    assert now["annotations"] == {"shelf": "of mine"} and listed in now["manifests"]
    assert [one["digest"] for one in now["manifests"] if one != listed] == [second.digest]
    after = {file.name: file.read_bytes() for file in (to / "blobs/sha256").iterdir()}
    assert before.items() <= after.items()
    assert first.digest[7:] not in after, "our first package is replaced"
    assert check_package(to, reach(), EMIT)[0] == second.digest and verify_layout(to) == []

    write_layout(tmp_path / "third", theirs, {"probe.json": b"{ }"}, {}, "0.2.0")
    now["manifests"].append({**read_entry(tmp_path / "third"), "annotations": {}})
    shutil.copytree(tmp_path / "third/blobs", to / "blobs", dirs_exist_ok=True)
    (to / "index.json").write_text(json.dumps(now))
    with pytest.raises(InputError, match="several packages"):
        push_package(layout, to, reach(), tmp_path / "w", EMIT)
    assert json.loads((to / "index.json").read_text()) == now


def read_entry(folder: Path) -> dict[str, object]:
    [entry] = json.loads((folder / "index.json").read_text())["manifests"]
    return dict(entry)


def test_a_tag_of_somebody_elses_image_is_not_taken(layout: Path, tmp_path: Path) -> None:
    write_layout(tmp_path / "shelf", tmp_path / "model", {}, {}, "0.1.0")
    index = (tmp_path / "shelf/index.json").read_bytes()
    with pytest.raises(InputError, match="another image of the tag"):
        push_package(layout, tmp_path / "shelf", reach(), tmp_path / "w", EMIT)
    assert (tmp_path / "shelf/index.json").read_bytes() == index


def test_a_copy_that_was_interrupted_goes_on(layout: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    push_package(layout, to, reach(), tmp_path / "w", EMIT)
    (to / "index.json").unlink()
    assert push_package(layout, to, reach(), tmp_path / "w", EMIT).digest == read_layout(to).digest


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("quay.io/org/model:1", Address("oci", "org/model", "quay.io", "1")),
        ("oci://host:5000/model", Address("oci", "model", "host:5000")),
        ("localhost/model:1", Address("oci", "model", "localhost", "1")),
        ("out/model", Path("base/out/model")),
        ("./quay.io/x", Path("base/quay.io/x")),
        ("/abs", Path("/abs")),
    ],
)
def test_what_a_destination_means(text: str, meant: object) -> None:
    assert place_of(text, Path("base")) == meant


def test_other_places_take_no_packages(layout: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no place for a package"):
        place_of("s3://bucket/key")
    with pytest.raises(InputError, match="under a tag"):
        push_package(layout, place_of("oci://h.test/m@sha256:" + "0" * 64), reach(), tmp_path / "w", EMIT)


def test_a_model_pack_holds_the_files_themselves(tmp_path: Path, layout: Path) -> None:
    from ilab.core.store import digest_file

    model = tmp_path / "model"
    digest = write_layout(tmp_path / "pack", model, {"README.md": b"# card"}, {}, "1.0.0", How("modelpack"))
    read = read_layout(tmp_path / "pack")
    assert (read.form, read.digest, verify_layout(tmp_path / "pack")) == ("modelpack", digest, [])
    weights = next(layer for layer in read.layers if layer.file == "model.safetensors")
    assert weights.digest == f"sha256:{digest_file(model / 'model.safetensors')}"
    assert weights.media == "application/vnd.cncf.model.weight.v1.raw"
    assert read.config["modelfs"] == {"type": "layers", "diffIds": [layer.digest for layer in read.layers]}
    folder = extract_layout(tmp_path / "pack", tmp_path / "out")
    assert (folder / "README.md").read_bytes() == b"# card"
    with serve_registry() as registry:
        place = place_of(f"{registry.host}/lab/lamp:1")
        push_package(tmp_path / "pack", place, reach(), tmp_path / "w", EMIT)
        assert same(tmp_path / "pack", pulled(place, tmp_path / "back", reach()))


def test_a_modelcar_stands_on_a_base_image(tmp_path: Path, layout: Path) -> None:
    """The base: a compressed layer with a shell, whose config names what is inside it; made as any builder makes it."""
    import gzip
    import io
    import tarfile

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        shell = tarfile.TarInfo("bin/sh")
        shell.size = 4
        tar.addfile(shell, io.BytesIO(b"#!sh"))
    base = tmp_path / "base"
    blobs = base / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    inside = f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"
    config = {
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": [inside]}, "history": [{}],
    }  # fmt: skip
    layer = put(gzip.compress(plain.getvalue(), mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [layer],
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
    }  # fmt: skip
    entry = put(json.dumps(manifest).encode(), str(manifest["mediaType"]))
    (base / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (base / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))

    first = write_layout(tmp_path / "car", tmp_path / "model", {}, {}, "1.0.0", How(base=base))
    again = write_layout(tmp_path / "again", tmp_path / "model", {}, {}, "1.0.0", How(base=base))
    assert first == again
    read = read_layout(tmp_path / "car")
    assert verify_layout(tmp_path / "car") == []
    assert read.layers[0].digest == layer["digest"] and read.config["rootfs"]["diff_ids"][0] == inside
    assert read.config["config"] == {"Env": ["PATH=/bin"]} and "created" not in read.config
    folder = extract_layout(tmp_path / "car", tmp_path / "out")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"], (
        "no shell in the model"
    )
    if shutil.which("umoci"):
        command = [
            "umoci",
            "raw",
            "unpack",
            "--rootless",
            "--image",
            f"{tmp_path / 'car'}:1.0.0",
            str(tmp_path / "root"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        assert (tmp_path / "root/bin/sh").read_bytes() == b"#!sh"
        assert (tmp_path / "root/models/config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("mib", [96, pytest.param(1024, marks=pytest.mark.long)])
def test_memory_does_not_grow_with_the_package(tmp_path: Path, mib: int) -> None:
    """There and back, in a process of its own: less than 64 MB with all libraries."""
    model = tmp_path / "big"
    model.mkdir()
    with (model / "model.safetensors").open("wb") as handle:
        handle.truncate(mib << 20)
    write_layout(tmp_path / "large", model, {}, {}, "1.0.0")
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ilab.config import WebWhere\n"
        "from ilab.core.events import Bus\n"
        "from ilab.packaging.publish import Reach, fetch_package, place_of, push_package\n"
        "place, here, emit = place_of(sys.argv[1]), Path(sys.argv[2]), Bus().for_step('push')\n"
        "push_package(here / 'large', place, Reach(WebWhere()), here / 'w', emit)\n"
        "fetch_package(place, here / 'back', Reach(WebWhere()), emit)\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))\n"
    )
    with docker_registry(tmp_path, {}) as host:
        command = [sys.executable, "-c", code, f"{host}/team/lamp:1", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert int(done.stdout) * 1024 < 64_000_000
    assert same(tmp_path / "large", tmp_path / "back")


def environment() -> dict[str, str]:
    import os

    import ilab

    return {**os.environ, "PYTHONPATH": str(Path(ilab.__file__).parents[1])}

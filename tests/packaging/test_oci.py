"""Image layouts: read back by an independent reader, and by skopeo and umoci where they are installed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from ilab.errors import InputError, SetupError
from ilab.packaging.image import write_layout
from ilab.packaging.oci import extract_layout, read_layout, verify_layout

NOTES = {"org.opencontainers.image.title": "tiny", "org.opencontainers.image.version": "0.1.0"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "nested").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 5000)
    (folder / "nested" / ("n" * 120 + ".txt")).write_text("a long name")
    (folder / "README.md").write_text("old")
    return folder


def write(out: Path, model: Path) -> str:
    return write_layout(out, model, {"README.md": b"# card", "lineage.json": model / "config.json"}, NOTES, "0.1.0")


def independent(layout: Path) -> dict[str, bytes]:
    """The files of a layout by the specification alone: json, hashlib, tarfile."""

    def blob(descriptor: dict[str, object]) -> Path:
        algorithm, digest = str(descriptor["digest"]).split(":")
        path = layout / "blobs" / algorithm / digest
        assert hashlib.new(algorithm, path.read_bytes()).hexdigest() == digest
        assert path.stat().st_size == descriptor["size"]
        return path

    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(entry).read_text())
    config = json.loads(blob(manifest["config"]).read_text())
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert manifest["annotations"] == NOTES
    files = {}
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer)) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                if member.isfile():
                    contents = archive.extractfile(member)
                    assert contents is not None
                    assert member.mode == 0o644
                    files[member.name] = contents.read()
    return files


def expected(model: Path) -> dict[str, bytes]:
    files = {f"models/{p.relative_to(model)}": p.read_bytes() for p in model.rglob("*") if p.is_file()}
    return {**files, "models/README.md": b"# card", "models/lineage.json": (model / "config.json").read_bytes()}


def test_an_independent_reader_finds_the_same_files(tmp_path: Path, model: Path) -> None:
    digest = write(tmp_path / "out", model)
    assert independent(tmp_path / "out") == expected(model)
    layout = read_layout(tmp_path / "out")
    assert (layout.digest, layout.reference) == (digest, "0.1.0")
    assert [layer.file for layer in layout.layers] == sorted(layer.file for layer in layout.layers)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert verify_layout(tmp_path / "out") == []


def test_digest_depends_on_contents_alone(tmp_path: Path, model: Path) -> None:
    first = write(tmp_path / "a", model)
    copy = tmp_path / "elsewhere"
    shutil.copytree(model, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert write(tmp_path / "b", copy) == first
    names = [{p.relative_to(tmp_path / d) for p in (tmp_path / d).rglob("*")} for d in "ab"]
    assert names[0] == names[1]
    (copy / "config.json").write_text("{}")
    assert write(tmp_path / "c", copy) != first


def test_memory_does_not_grow_with_the_file(tmp_path: Path, model: Path) -> None:
    with (model / "big.safetensors").open("wb") as handle:
        handle.truncate(64 << 20)
    tracemalloc.start()
    try:
        write(tmp_path / "out", model)
        assert verify_layout(tmp_path / "out") == []
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_extract_gives_the_model_back(tmp_path: Path, model: Path) -> None:
    write(tmp_path / "out", model)
    folder = extract_layout(tmp_path / "out", tmp_path / "new")
    found = {f"models/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == expected(model)
    with pytest.raises(InputError, match="not empty"):
        extract_layout(tmp_path / "out", tmp_path / "new")


def test_verify_names_what_is_wrong(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out"
    write(out, model)
    layout = read_layout(out)
    blobs = {layer.file: out / "blobs" / "sha256" / layer.digest[7:] for layer in layout.layers}
    data = bytearray(blobs["model.safetensors"].read_bytes())
    data[2000] ^= 1
    blobs["model.safetensors"].write_bytes(data)
    blobs["config.json"].write_bytes(b"short")
    blobs["README.md"].unlink()
    (out / "blobs" / "sha256" / ("0" * 64)).write_text("stray")
    problems = "\n".join(verify_layout(out))
    for words in (
        "model.safetensors: ", "bytes were changed", "has 5 bytes instead of", "README.md: the blob", "missing",
        "belongs to no image",
    ):  # fmt: skip
        assert words in problems
    with pytest.raises(InputError, match="damaged"):
        extract_layout(out, tmp_path / "new")
    (out / "blobs" / "sha256" / layout.digest[7:]).write_text("{}")
    assert "does not match its digest" in verify_layout(out)[0]
    (out / "index.json").unlink()
    assert "index.json cannot be read" in verify_layout(out)[0]


def test_what_may_not_be_packaged(tmp_path: Path, model: Path) -> None:
    for name in ("../up.txt", "/etc/passwd", "a//b", ".", "a/../b"):
        with pytest.raises(InputError, match="no name for a file"):
            write_layout(tmp_path / "out", model, {name: b""}, {}, "1")
    with pytest.raises(InputError, match="pickled code"):
        write_layout(tmp_path / "out", model, {"pytorch_model.bin": b""}, {}, "1")
    with pytest.raises(InputError, match="no tag"):
        write_layout(tmp_path / "out", model, {}, {}, "a b")
    with pytest.raises(InputError, match="no model to package"):
        write_layout(tmp_path / "out", tmp_path / "nowhere", {}, {}, "1")
    with pytest.raises(InputError, match="fewer, larger shards"):
        write_layout(tmp_path / "out", model, {f"{n}.json": b"" for n in range(130)}, {}, "1")
    (model / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="no links"):
        write(tmp_path / "out", model)
    assert not (tmp_path / "out" / "index.json").exists()


def test_unwritable_place(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError):
        write(tmp_path / "file" / "out", model)


def evil(out: Path, model: Path, member: tarfile.TarInfo) -> None:
    """Replace a layer by one that holds ``member``, with all digests right."""
    write(out, model)
    layer = out / "layer"
    with tarfile.open(layer, "w") as archive:
        archive.addfile(member)

    def put(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        (out / "blobs" / "sha256" / digest).write_bytes(data)
        return f"sha256:{digest}", len(data)

    digest, size = put(layer.read_bytes())
    layout = read_layout(out)
    shutil.rmtree(out / "blobs" / "sha256")
    (out / "blobs" / "sha256").mkdir()
    put(layer.read_bytes())
    config, config_size = put(json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest]}}).encode())
    manifest = {
        **layout.manifest,
        "config": {"digest": config, "size": config_size},
        "layers": [{"digest": digest, "size": size}],
    }
    name, length = put(json.dumps(manifest).encode())
    (out / "index.json").write_text(json.dumps({"manifests": [{"digest": name, "size": length}]}))


@pytest.mark.parametrize(
    "name", ["models/../../escape", "/models/x", "etc/passwd", "models/.wh.config.json", "models/a"]
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_extraction_refuses_escapes_and_links(tmp_path: Path, model: Path, name: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    evil(tmp_path / "out", model, member)
    if name == "models/a" and kind == tarfile.REGTYPE:
        assert (extract_layout(tmp_path / "out", tmp_path / "new") / "a").is_file()
        return
    with pytest.raises(InputError, match="not a plain file below"):
        extract_layout(tmp_path / "out", tmp_path / "new")
    assert not list((tmp_path).rglob("escape"))


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "md5:" + "0" * 32, 7, None])
def test_a_digest_that_is_none_names_no_file(tmp_path: Path, model: Path, digest: object) -> None:
    write(tmp_path / "out", model)
    (tmp_path / "out" / "index.json").write_text(json.dumps({"manifests": [{"digest": digest, "size": 1}]}))
    with pytest.raises(InputError, match="lacks its digest"):
        read_layout(tmp_path / "out")


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_it(tmp_path: Path, model: Path) -> None:
    digest = write(tmp_path / "out", model)
    shown = subprocess.run(
        ["skopeo", "inspect", f"oci:{tmp_path / 'out'}:0.1.0"], capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout)["Digest"] == digest


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_umoci_unpacks_it(tmp_path: Path, model: Path) -> None:
    write(tmp_path / "out", model)
    subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'out'}:0.1.0", str(tmp_path / "bundle")],
        capture_output=True,
        check=True,
    )
    rootfs = tmp_path / "bundle" / "rootfs"
    assert {str(p.relative_to(rootfs)): p.read_bytes() for p in rootfs.rglob("*") if p.is_file()} == expected(model)

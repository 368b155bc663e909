"""A build that is pushed: to a registry, read back, found again, and pushed nowhere where the gate says no."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ilab.core.files import read_json
from ilab.packaging.oci import extract_layout, read_layout
from ilab.packaging.registry import Registry
from ilab.testing.oci_registry import serve_registry


def test_the_package_is_pushed_verified_and_found_again(built: Any, tmp_path: Path) -> None:
    own = built.store.contents(built.latest("package"))
    entries = Registry(built.root / ".ilab/registry.sqlite")
    for one in entries.list():  # the project is a copy: its registry points to the package of the original
        entries.register(one.model_copy(update={"uri": f"oci:{own}"}))
    with serve_registry() as registry:
        place = f"{registry.host}/team/small:0.1.0"
        given = ("-p", f"output_oci_model_uri={place}")
        assert {name for name, row in built.plan(*given).items() if row["state"] != "reuse"} == {"push", "register"}
        built.built(*given)
        package = read_layout(built.store.contents(built.latest("package")))
        assert registry.manifests["team/small", "0.1.0"] == registry.manifests["team/small", package.digest]
        entry = built.json("registry", "show", "small")
        assert entry["remote"] == f"oci://{place}" and entry["digest"] == package.digest
        assert {row["state"] for row in built.plan(*given).values()} == {"reuse"}
        assert built.json("package", "verify", f"oci://{place}")["wrong"] == {}
        del registry.manifests["team/small", package.digest]
        assert built.plan(*given)["push"]["state"] == "run", "somebody removed it there"
        refused = built.ilab("run", *given, "-p", "eval_quality_threshold=0.99", "-p", "output_model_version=0.2.0")
        assert refused.returncode == 5
        assert ("team/small", "0.2.0") not in registry.manifests and len(registry.manifests) == 1
        assert [one.version for one in Registry(built.root / ".ilab/registry.sqlite").list()] == ["0.1.0"]


def test_what_a_package_of_a_build_holds(built: Any, tmp_path: Path) -> None:
    built.built("-p", "output_format=modelpack", "-p", "output_gguf=q8_0", "-p", "output_license=MIT")
    layout = read_layout(built.store.contents(built.latest("package")))
    assert layout.form == "modelpack" and layout.manifest["annotations"]["org.opencontainers.image.licenses"] == "MIT"
    folder = extract_layout(layout.path, tmp_path / "package")
    bill = read_json(folder / "bom.json")
    assert bill["specVersion"] == "1.6" and len(bill["components"][1]["components"]) == 2
    named = {one["name"]: one["hashes"][0]["content"] for one in bill["metadata"]["component"]["components"]}
    assert f"sha256:{named['model.safetensors']}" == next(
        one.digest for one in layout.layers if one.file == "model.safetensors"
    )
    assert "## Licences and obligations" in (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "small-q8_0.gguf").read_bytes()[:4] == b"GGUF"
    assert (folder / "Modelfile").read_text().startswith("FROM ./small-q8_0.gguf\nPARAMETER num_ctx ")
    assert json.loads((folder / "small-q8_0.parity.json").read_text())["type"] == "q8_0"
    assert built.json("package", "verify")["wrong"] == {}

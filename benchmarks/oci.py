"""Pushing and pulling a package: throughput and memory, beside skopeo and oras, against docker's registry with TLS.

    python benchmarks/oci.py [--size MIB] [--write]     the table, also into benchmarks/oci.md
    python benchmarks/oci.py --oras PROGRAM             oras as well: benchmarks/peers/oras/main.go, built

ORAS is measured by its library, of which Debian has version 1.1 and no program:

    apt-get install golang-go golang-oras-oras-go-dev
    GO111MODULE=off GOPATH=/usr/share/gocode go build -o /tmp/oras-copy benchmarks/peers/oras/main.go

The model is one file of random bytes, so nothing can be compressed away. Each program runs in a process of its own;
memory is the largest resident set that the kernel saw. `ilab package push` reads everything back before it says that it
is there; the row "ilab push" is the push alone, as skopeo does it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "packaging"))
from cost import Cost, ilab
from registries import LOGIN, SIGNERS, docker_login, docker_registry, htpasswd, pair

from ilab.packaging.image import How, write_layout
from ilab.packaging.oci import read_layout

HERE = Path(__file__).resolve().parent
OURS = """
import sys
from pathlib import Path
from ilab.config import WebWhere
from ilab.core.events import Bus
from ilab.packaging.publish import Reach, check_package, fetch_package, place_of, registry_at
from ilab.transfer.push import outgoing, push_registry
act, place, layout, ca, logins = sys.argv[1:]
reach, emit = Reach(WebWhere(ca_file=ca), Path(logins)), Bus().for_step(act)
place = place_of(place)
if act == "push":
    with registry_at(place, reach) as registry:
        push_registry(outgoing(Path(layout)), registry, "", emit)
elif act == "pull":
    fetch_package(place, Path(layout), reach, emit)
else:
    check_package(place, reach, emit)
"""


# A child's peak is never told as less than what its parent held, and this process holds a lot: a small one measures.
MEASURE = """
import json, sys
from dataclasses import asdict
from cost import cost
print(json.dumps(asdict(cost(sys.argv[1:], times=1))))
"""


def measured(command: Sequence[str]) -> Cost:
    measuring = [sys.executable, "-c", MEASURE, *command]
    done = subprocess.run(measuring, cwd=HERE, capture_output=True, text=True, check=True)
    return Cost(**json.loads(done.stdout))


def run(size: int, oras: str) -> list[tuple[str, Cost]]:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        model = work / "model"
        model.mkdir()
        with (model / "model.safetensors").open("wb") as handle:
            for _ in range(size):
                handle.write(os.urandom(1 << 20))
        write_layout(work / "layout", model, {}, {}, "1.0", How())
        tls = pair(work, "server", SIGNERS["ES256"]())
        (work / "certs").mkdir()
        shutil.copy(tls.certificate_file, work / "certs" / "ca.crt")
        rows = []
        with docker_registry(work, htpasswd(work), tls) as host:
            logins = docker_login(work / "docker", host)
            for label, act, tag, target in (
                ("ilab push", "push", "a", "layout"),
                ("ilab pull", "pull", "a", "pulled"),
                ("ilab verify --quick (streamed)", "check", "a", "-"),
            ):
                place = f"{host}/lab/ours:{tag}"
                given = [act, place, str(work / target), str(tls.certificate_file), str(logins)]
                rows.append((label, measured([sys.executable, "-c", OURS, *given])))
            ca = f"where.web.ca_file={tls.certificate_file}"
            whole = ilab("--set", ca, "package", "push", f"{host}/lab/whole:1", "--package", work / "layout")
            rows.append(("ilab package push, read back", measured([*map(str, whole), "--logins", str(logins)])))
            if shutil.which("skopeo"):
                certs = ["--src-cert-dir", str(work / "certs")], ["--dest-cert-dir", str(work / "certs")]
                there = f"docker://{host}/lab/skopeo:1"
                login = ":".join(LOGIN)
                push = ["skopeo", "--insecure-policy", "copy", *certs[1], "--dest-creds", login]
                rows.append(("skopeo push", measured([*push, f"oci:{work / 'layout'}:1.0", there])))
                pull = ["skopeo", "--insecure-policy", "copy", *certs[0], "--src-creds", login]
                rows.append(("skopeo pull", measured([*pull, there, f"oci:{work / 'theirs'}:1.0"])))
            if oras:
                trusting = ["env", f"SSL_CERT_FILE={tls.certificate_file}", oras]
                for act, folder in (("push", "layout"), ("pull", "orass")):
                    given = [act, str(work / folder), "1.0", f"{host}/lab/oras:1", ":".join(LOGIN)]
                    rows.append((f"oras-go {act}", measured([*trusting, *given])))
                assert read_layout(work / "orass").digest == read_layout(work / "layout").digest
        return rows


def table(rows: Sequence[tuple[str, Cost]], size: int) -> str:
    lines = ["| | MB/s | CPU-s | peak memory, MiB |", "| --- | ---: | ---: | ---: |"]
    for label, cost in rows:
        rate = size * 1.048576 / cost.wall
        lines.append(f"| {label} | {rate:,.0f} | {cost.cpu:.1f} | {cost.peak / 2**20:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--oras", default="", help="the program of benchmarks/peers/oras")
    given = parser.parse_args()
    rows = run(given.size, given.oras)
    text = table(rows, given.size)
    print(text)
    if given.write:
        head = (
            "# Pushing and pulling a package\n\n"
            f"{given.size} MiB of random bytes, docker's registry with TLS and a password on the same machine "
            f"({os.cpu_count()} cores, {platform.machine()}), by `python benchmarks/oci.py --write`. Both cores were "
            "shared with other work, so CPU seconds and memory say more than the rate.\n\n"
        )
        tail = (
            "\n\n`ilab package push` reads everything back, so it takes as long as a push and a streamed check. skopeo "
            "compresses plain layers while it pushes, which changes their digests; so its figures hold less of sending "
            "and more of packing. ORAS is measured by its library (oras-go 1.1, Debian's), which copies the layers as "
            "they are, as ilab does; its pull keeps the same digest.\n"
        )
        (HERE / "oci.md").write_text(head + text + tail, encoding="utf-8")


if __name__ == "__main__":
    main()

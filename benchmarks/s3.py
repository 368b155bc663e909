"""How fast does a model of 1 GiB go to a store in a bucket and come back, and does memory stay flat?

    python benchmarks/s3.py               # 1 GiB in 4 files, against moto's server on this machine
    python benchmarks/s3.py --mib 64
    AWS_ENDPOINT_URL_S3=… python benchmarks/s3.py --bucket NAME     # against a real one; what it sends is removed

Prints MiB/s and the peak memory of the process that sends and of the one that receives. moto keeps everything in memory
and is written in Python, so its figures are a lower bound of what a server can do.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cost import cost, python

FILES = 4
_OPEN = """
import sys
from pathlib import Path
from ilab.config import WebWhere
from ilab.core.remote_store import RemoteStore
from ilab.core.store import RecordFile
from ilab.transfer.address import parse
from ilab.transfer.s3_objects import S3Objects
store = RemoteStore(Path(sys.argv[1]), S3Objects(parse(sys.argv[2]), "", WebWhere()))
"""
_SEND = f"""{_OPEN}
import os
record = RecordFile(step="base", type="base", version=1, key="0" * 32, fields={{}}, inputs={{}}, input_digests={{}},
                    digest="", counts={{}})
with store.writing("base", record.key) as partial:
    for number in range({FILES}):
        with (partial.artifact / f"model-{{number}}.safetensors").open("wb") as out:
            for _ in range(int(sys.argv[3]) // {FILES}):
                out.write(os.urandom(1 << 20))
    store.publish(partial, record)
"""
_RECEIVE = f"""{_OPEN}
store.contents(store.record("base", "0" * 32))
"""
_CLEAN = f"""{_OPEN}
store.remove(store.record("base", "0" * 32))
store.objects.delete([name for name, _ in store.objects.list("")])
"""


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--mib", type=int, default=1024)
    given.add_argument("--bucket", default="")
    options = given.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(options.bucket, Path(folder)) as bucket:
        place = f"s3://{bucket}/ilab-benchmark"
        for name, code, mirror in (("send", _SEND, "a"), ("receive", _RECEIVE, "b")):
            found = cost(python(code, Path(folder) / mirror, place, str(options.mib)), times=1)
            rate, peak = options.mib / found.wall, found.peak / 2**20
            print(f"{name}: {rate:.0f} MiB/s, {found.cpu:.1f} CPU-s, peak {peak:.0f} MiB")
        cost(python(_CLEAN, Path(folder) / "a", place, "0"), times=1)


@contextmanager
def server(bucket: str, home: Path) -> Iterator[str]:
    """The bucket that was given, or one of a server that runs as long as the block."""
    if bucket:
        yield bucket
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{port}", AWS_EC2_METADATA_DISABLED="true")
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        make = "import boto3; boto3.client('s3').create_bucket(Bucket='benchmark')"
        for _ in range(60):
            time.sleep(0.5)
            if subprocess.run([sys.executable, "-c", make], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                break
        try:
            yield "benchmark"
        finally:
            process.terminate()


if __name__ == "__main__":
    main()

"""A store in a bucket for another process: steps that keep work, write the memo, or wait to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import ClassVar

import toy

from ilab.config import WebWhere, Where
from ilab.core import remote_lease, remote_sync
from ilab.core.files import write_text
from ilab.core.pipeline import Plan, build, read_pipeline
from ilab.core.remote_store import RemoteStore
from ilab.core.run import Engine
from ilab.core.step import Counts, Site, Step
from ilab.transfer.address import parse
from ilab.transfer.s3_objects import S3Objects

STEPS = """
name: toy
steps:
  load: {step: load, source: $source}
  strip: {step: strip, from: {text: load}}
  slow: {step: slow, times: $times, from: {text: strip}}
  join: {step: join, from: {parts: {a: slow}, extra: strip}}
"""


class Slow(Step):
    """Does a thing so many times and remembers how often; ``stop`` beside the source makes it wait at the third."""

    type: ClassVar[str] = "slow"
    times: int = 5

    def run(self, text: toy.Text, *, out: toy.Text, site: Site) -> Counts:
        cursor = site.work / "state" / "cursor.txt"
        begun = int(cursor.read_text()) if cursor.exists() else 0
        memo = site.memo("rows")
        for number in range(begun, self.times):
            if memo.get(f"row-{number}") is None:
                memo.put(f"row-{number}", number)
            write_text(cursor, str(number + 1))
            while number == 2 and (Path.cwd() / "stop").exists():
                memo.flush()
                time.sleep(0.05)
        out.write(text.read() * self.times)
        return {"begun": begun, "written": memo.writes, "found": memo.hits}


class Hanging(S3Objects):
    """Never sends the records whose names begin with what stands in ``hang``."""

    def write(self, name: str, data: bytes, *, absent: bool = False, match: str = "") -> str:
        hang = Path.cwd() / "hang"
        while hang.exists() and name.startswith(hang.read_text()) and name.endswith("record.json"):
            time.sleep(0.05)
        return super().write(name, data, absent=absent, match=match)


TYPES: dict[str, type[Step]] = {**toy.TYPES, "slow": Slow}


def store_at(root: Path, endpoint: str) -> RemoteStore:
    return RemoteStore(root, Hanging(parse("s3://toys/store"), endpoint, WebWhere()))


def plan_for(source: Path, times: int = 5) -> Plan:
    pipeline = source.parent / "toy.yaml"
    pipeline.write_text(STEPS)
    read = read_pipeline(pipeline, lambda name: source.parent / name)
    return build(read, TYPES, {"source": str(source), "times": times}, toy.resolvers())


if __name__ == "__main__":
    remote_sync.ROUND, remote_lease.BEAT = 0.1, 0.2
    mirror, server, given = sys.argv[1:]
    engine = Engine(store_at(Path(mirror), server), Where(jobs=1))
    engine.run(plan_for(Path(given)))
    engine.close()

"""Tokenised once: kept by content, mapped, whole or made again, one writer at a time, bounded memory."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ilab.errors import InputError
from ilab.models.renderer import Encoded, Renderer
from ilab.training.encode import EncodedSet, encode_samples
from ilab.training.pieces import EncodeOptions
from ilab.training.records import RawSample, RecordFiles
from ilab.training.shards import Torn, encode_set, open_set

OPTIONS = EncodeOptions(max_length=64)
SAMPLES = [
    RawSample(f"r{at}", ({"role": "user", "content": f"{at} + {at}?"}, {"role": "assistant", "content": f"{2 * at}. " * (at % 4 + 1)}))
    for at in range(40)
] + [RawSample("long", ({"role": "user", "content": "x" * 99}, {"role": "assistant", "content": "y"}))]  # fmt: skip


class Mute(Renderer):
    """A renderer that must not be asked."""

    def encode(self, *args: object, **more: object) -> Encoded:
        raise AssertionError("tokenised again")


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return Renderer.load(tiny_model)


def same(first: EncodedSet, second: EncodedSet) -> bool:
    pairs = zip(first.ids, second.ids, strict=True), zip(first.trained, second.trained, strict=True)
    equal = all(np.array_equal(a, b) for pair in pairs for a, b in pair)
    return equal and first.rows == second.rows and first.left_out == second.left_out and first.audit == second.audit


def test_kept_and_mapped_without_tokenising_again(renderer: Renderer, tiny_model: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    made = encode_set(SAMPLES * 10, renderer, OPTIONS, tmp_path, lambda rows, tokens: reports.append((rows, tokens)))
    assert same(made, encode_samples(SAMPLES * 10, renderer, OPTIONS))
    assert [rows for rows, _ in reports] == [256]
    mapped = encode_set(SAMPLES * 10, Mute.load(tiny_model), OPTIONS, tmp_path)
    assert same(mapped, made)
    assert mapped.left_out[0][0] == "long"
    assert mapped.lengths == [len(ids) for ids in mapped.ids]
    assert mapped.trained_counts == made.trained_counts
    row = mapped.ids[3]
    assert isinstance(row, np.ndarray) and row.dtype == np.int32 and not row.flags.writeable
    assert torch.tensor(row).tolist() == renderer.encode(SAMPLES[3].messages, "assistant").ids
    assert mapped.trained[3].dtype == np.bool_  # type: ignore[union-attr]


def test_the_key_is_all_that_decides_the_tokens(renderer: Renderer, tmp_path: Path) -> None:
    def kept(samples: list[RawSample], by: Renderer = renderer, options: EncodeOptions = OPTIONS) -> set[str]:
        before = {path.name for path in tmp_path.iterdir() if path.is_dir()}
        encode_set(samples, by, options, tmp_path)
        return {path.name for path in tmp_path.iterdir() if path.is_dir()} - before

    assert kept(SAMPLES)
    assert not kept([replace(sample, where="elsewhere:1") for sample in SAMPLES])
    changed = replace(SAMPLES[0], messages=(*SAMPLES[0].messages[:1], {"role": "assistant", "content": "zero"}))
    assert kept([changed, *SAMPLES[1:]])
    assert kept([replace(SAMPLES[0], unmask=True), *SAMPLES[1:]])
    assert kept([*SAMPLES[1:], SAMPLES[0]])
    assert kept(SAMPLES, options=OPTIONS.model_copy(update={"max_length": 63}))
    assert kept(SAMPLES, options=OPTIONS.model_copy(update={"train_on": "all"}))
    template = "{% for m in messages %}{{ m.role + m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
    assert kept(SAMPLES, by=renderer.with_template(template, "here"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "index", "format", "empty"])
def test_a_torn_set_is_made_again(renderer: Renderer, tmp_path: Path, damage: str) -> None:
    made = encode_set(SAMPLES, renderer, OPTIONS, tmp_path)
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    tokens = folder / "tokens.i32"
    data = bytearray(tokens.read_bytes())
    if damage == "cut":
        os.truncate(tokens, len(data) - 4)
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        tokens.unlink()  # an inode of its own: the old one is mapped
        tokens.write_bytes(data)
    elif damage == "gone":
        (folder / "rows.json").unlink()
    elif damage == "index":
        (folder / "index.json").write_text('{"format": 1')
    elif damage == "format":
        index = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps({**index, "files": {}}))
    else:
        for path in folder.iterdir():
            path.unlink()
    with pytest.raises(Torn):
        open_set(folder)
    assert same(encode_set(SAMPLES, renderer, OPTIONS, tmp_path), encode_samples(SAMPLES, renderer, OPTIONS))
    assert made.rows == open_set(folder).rows


def test_nothing_is_kept_of_data_that_is_refused(renderer: Renderer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        encode_set(SAMPLES[-1:], renderer, OPTIONS, tmp_path)
    with pytest.raises(InputError, match="changed while it was read"):
        encode_set(iter(SAMPLES), renderer, OPTIONS, tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"user": "Q", "assistant": "A"}) + "\n")

    class Growing(RecordFiles):
        def __iter__(self) -> Iterator[RawSample]:
            yield from super().__iter__()
            with path.open("a") as handle:
                handle.write(json.dumps({"user": "Q", "assistant": "B"}) + "\n")

    with pytest.raises(InputError, match="changed while it was read"):
        encode_set(Growing((path,)), renderer, OPTIONS, tmp_path)
    assert not [entry for entry in tmp_path.iterdir() if entry.is_dir()]


def test_samples_are_streamed(renderer: Renderer, tmp_path: Path) -> None:
    """However many rows there are, only a few are held at a time."""
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    class Stream:
        def __iter__(self) -> Iterator[RawSample]:
            nonlocal alive, most
            for at in range(600):
                sample = RawSample(
                    f"s{at}", ({"role": "user", "content": "q"}, {"role": "assistant", "content": f"{at}"})
                )
                weakref.finalize(sample, gone)
                alive += 1
                most = max(most, alive)
                yield sample

    data = encode_set(Stream(), renderer, OPTIONS, tmp_path)
    gc.collect()
    assert len(data.rows) == 600
    assert most < 5


WORKER = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from ilab.models.renderer import Renderer
    from ilab.training.pieces import EncodeOptions
    from ilab.training.records import RawSample
    from ilab.training.shards import encode_set

    model, cache, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    samples = [RawSample(f"s{n}", ({"role": "user", "content": "q"}, {"role": "assistant", "content": f"{n}"})) for n in range(700)]
    encoded = 0

    class Counting(Renderer):
        def encode(self, *args, **more):
            global encoded
            encoded += 1
            return super().encode(*args, **more)

    def progress(rows, tokens):
        if mode == "die":
            os.kill(os.getpid(), 9)

    data = encode_set(samples, Counting.load(model), EncodeOptions(max_length=64), cache, progress)
    print(len(data.rows), int(sum(ids.sum() for ids in data.ids)), encoded)
    """
)


def worker(model: Path, cache: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(model), str(cache), mode], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_share_the_work_and_a_killed_one_is_no_obstacle(tiny_model: Path, tmp_path: Path) -> None:
    killed = worker(tiny_model, tmp_path, "die")
    assert killed.communicate()[0] == "" and killed.returncode == -9
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".partial"]
    both = [worker(tiny_model, tmp_path, "run") for _ in range(2)]
    told = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert told[0][:2] == told[1][:2] and told[0][0] == "700"
    assert min(int(encoded) for _, _, encoded in told) == 0, "one of them only mapped"
    assert max(int(encoded) for _, _, encoded in told) >= 700
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [""]


def test_the_number_of_workers_changes_nothing(
    renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = encode_samples(SAMPLES * 9, renderer, OPTIONS)
    monkeypatch.setattr("ilab.training.workers.ALONE", 10)
    assert same(encode_set(SAMPLES * 9, renderer, OPTIONS, tmp_path, workers=2), alone)
    bad = RawSample("bad", ({"role": "user", "content": "\ud800"},), where="rows.jsonl:91")
    with pytest.raises(InputError, match=r"row 91 \(bad\): the text is not valid Unicode") as caught:
        encode_set([*(SAMPLES * 9)[:90], bad], renderer, OPTIONS, tmp_path, workers=2)
    assert caught.value.where == "rows.jsonl:91"


@pytest.mark.long
def test_two_hundred_thousand_rows_fit_into_little_memory(tiny_model: Path, tmp_path: Path) -> None:
    """Peak resident memory over that of 2,000 rows, which is what libraries take."""
    script = textwrap.dedent(
        """
        import json, resource, sys
        from pathlib import Path
        from ilab.models.renderer import Renderer
        from ilab.training.pieces import EncodeOptions
        from ilab.training.records import RecordFiles
        from ilab.training.shards import encode_set

        model, cache, path = (Path(name) for name in sys.argv[1:])
        data = encode_set(RecordFiles.find(path), Renderer.load(model), EncodeOptions(max_length=512), cache)
        print(len(data.rows), sum(data.lengths), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        """
    )
    peaks = []
    for count in (2_000, 200_000):
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as handle:
            for at in range(count):
                row = {
                    "id": f"row-{at}",
                    "user": f"What is {at} plus {at}?",
                    "assistant": f"{2 * at}. " + "It is. " * 20,
                }
                handle.write(json.dumps(row) + "\n")
        arguments = [sys.executable, "-c", script, str(tiny_model), str(tmp_path / "cache"), str(path)]
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
        rows, tokens, peak = map(int, done.stdout.split())
        assert rows == count
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 100_000_000, f"{tokens * 5:,} bytes of tokens and masks are on disk"

"""Tokens a second and peak memory of training, beside other trainers, on one machine in one run.

    python benchmarks/training.py                  # ours, and the peers that are installed
    python benchmarks/training.py --peers DIR      # peers from DIR (made and filled with pip where it is empty)
    python benchmarks/training.py --write          # also put the figures into benchmarks/training.md

One model (random weights, made from a config), one set of samples with lengths as chat data has them (log-normal), one
epoch, the same batch, learning rate and precision for all. Each contender runs in a process of its own; rounds are
interleaved, and the medians of their ratios are told. Training is timed, not loading or saving. Memory is what the
peak adds to the process once the model is loaded. MFU is against a matrix product that this machine is timed on.

The loss: with all samples in one batch the order does not matter, so exact trainers must agree step by step; they are
compared so before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).with_suffix(".md")
PEERS = ("trl==1.16.0", "datasets==5.2.0", "accelerate==1.15.0")
BESIDE = ("pyarrow", "dill", "multiprocess", "xxhash", "pandas", "psutil", "python-dateutil", "pytz", "six", "tzdata")
SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
LONGEST = 1024
RATE = 1e-4


def samples(count: int, mean: float, seed: int = 5) -> list[tuple[list[int], list[bool]]]:
    """Ids and masks: the first half of a sample, more or less, is a question and bears no loss."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        length = min(LONGEST, max(8, round(draw.lognormvariate(0, 0.7) * mean)))
        prompt = round(length * draw.uniform(0.2, 0.7))
        ids = [draw.randrange(10, SHAPE["vocab_size"]) for _ in range(length)]
        made.append((ids, [at >= prompt for at in range(length)]))
    return made


def make_base(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE, bos_token_id=1, eos_token_id=2)).save_pretrained(folder)


def ours(layout: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def run(job: dict[str, Any]) -> dict[str, Any]:
        import torch

        from ilab.config import TrainWhere
        from ilab.core.events import Bus
        from ilab.training import loop
        from ilab.training.encode import EncodedSet
        from ilab.training.metrics import read_metrics
        from ilab.training.settings import TrainSettings
        from ilab.training.world import World

        rows = samples(job["count"], job["mean"])
        data = EncodedSet(
            tuple(str(at) for at in range(len(rows))),
            tuple(tuple(ids) for ids, _ in rows),
            tuple(tuple(mask) for _, mask in rows),
            (),
        )
        settings = TrainSettings(
            epochs=job["epochs"],
            batch=job["batch"],
            learning_rate=RATE,
            betas=(0.9, 0.999),
            max_length=LONGEST,
            max_batch_tokens=job["cap"],
        )
        work = Path(job["work"])
        train = loop.TrainJob(
            data=data,
            held_out=EncodedSet((), (), (), ()),
            base=Path(job["base"]),
            work=work,
            settings=settings,
            emit=Bus().for_step("train"),
            stopping=lambda: False,
            threads=job["threads"],
            where=TrainWhere(layout=layout),  # type: ignore[arg-type]
        )
        torch.set_num_threads(job["threads"])
        run = loop._Run(train, World(0, 1, "cpu"))
        run._save = run._prune = lambda *_: None  # type: ignore[method-assign]
        before, cpu, began = _memory(), time.process_time(), time.perf_counter()
        with loop.Metrics(work, train.emit, 1, 0, run.gauge(1.0)) as metrics:
            run.go(10**9, metrics)
        return _told(began, cpu, before, [row["loss"] for row in read_metrics(work)])

    return run


def hugging_face(**options: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def run(job: dict[str, Any]) -> dict[str, Any]:
        import torch
        from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

        torch.set_num_threads(job["threads"])
        rows = [
            {"input_ids": ids, "labels": [i if bears else -100 for i, bears in zip(ids, mask, strict=True)]}
            for ids, mask in samples(job["count"], job["mean"])
        ]

        def pad(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
            longest = max(len(row["input_ids"]) for row in batch)
            fill = {"input_ids": 0, "labels": -100}
            made = {
                key: torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in batch])
                for key, value in fill.items()
            }
            lengths = torch.tensor([len(row["input_ids"]) for row in batch])
            made["attention_mask"] = (torch.arange(longest)[None] < lengths[:, None]).long()
            return made

        losses: list[float] = []

        class Keep(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if logs and "loss" in logs:
                    losses.append(float(logs["loss"]))

        told = TrainingArguments(
            output_dir=job["work"],
            num_train_epochs=job["epochs"],
            per_device_train_batch_size=job["batch"],
            learning_rate=RATE,
            lr_scheduler_type="constant",
            use_cpu=True,
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
            **options,
        )
        model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
        trainer = Trainer(model=model, args=told, train_dataset=rows, data_collator=pad, callbacks=[Keep()])
        before, cpu, began = _memory(), time.process_time(), time.perf_counter()
        trainer.train()
        return _told(began, cpu, before, losses)

    return run


def trl_packed(job: dict[str, Any]) -> dict[str, Any]:
    import itertools

    import torch
    from datasets import Dataset, fingerprint
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    unused = itertools.count()
    fingerprint.Hasher.hash = classmethod(lambda *_: f"{next(unused):016x}")  # names of cache files; dill fails at them
    torch.set_num_threads(job["threads"])
    rows = samples(job["count"], job["mean"])
    data = Dataset.from_dict(
        {"input_ids": [ids for ids, _ in rows], "completion_mask": [[int(one) for one in mask] for _, mask in rows]}
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="</s>",
    )
    told = SFTConfig(
        output_dir=job["work"],
        num_train_epochs=job["epochs"],
        per_device_train_batch_size=job["rows"],
        learning_rate=RATE,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        packing=True,
        max_length=LONGEST,
        completion_only_loss=True,
    )
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
    trainer = SFTTrainer(model=model, args=told, train_dataset=data, processing_class=tokenizer)
    before, cpu, began = _memory(), time.process_time(), time.perf_counter()
    trainer.train()
    return _told(began, cpu, before, [])


CONTENDERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "ours": ours("auto"),
    "ours, packed": ours("packed"),
    "Trainer, padded": hugging_face(),
    "Trainer, grouped by length": hugging_face(train_sampling_strategy="group_by_length"),
    "TRL, packed": trl_packed,
}
EXACT = ("ours", "ours, packed", "Trainer, padded")


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _told(began: float, cpu: float, before: int, losses: list[float]) -> dict[str, Any]:
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "memory": _memory() - before,
        "losses": losses,
    }


def peak(threads: int) -> float:
    """Floating-point operations a second of a matrix product, the best of some."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = 0.0
    for _ in range(12):
        began = time.perf_counter()
        torch.mm(left, right)
        best = max(best, 2 * 1024**3 / (time.perf_counter() - began))
    return best


def in_process(name: str, job: dict[str, Any], peers: Path | None) -> dict[str, Any]:
    """One contender's run, in a process of its own."""
    path = [str(ROOT / "src"), *([str(peers)] if peers else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as work:
        told = json.dumps({**job, "work": work})
        command = [sys.executable, __file__, "--contender", name, "--job", told]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    made: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return made


def installed(peers: Path | None) -> Path | None:
    """The folder of the peers, filled if need be; torch and transformers are those of this environment."""
    if peers is not None and not (peers / "trl").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(peers)]
        subprocess.run([*pip, *PEERS, *BESIDE], check=True)
    return peers


def compare(arguments: argparse.Namespace) -> str:
    peers = installed(arguments.peers)
    names = [name for name in CONTENDERS if name.startswith("ours") or peers]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        make_base(base)
        common = {"base": str(base), "threads": arguments.threads, "cap": arguments.cap, "rows": 2}
        whole = {**common, "count": 24, "mean": 60.0, "batch": 24, "epochs": 4}
        curves = {name: in_process(name, whole, peers)["losses"] for name in EXACT if name in names}
        lines = ["Loss of four steps over all of 24 samples (exact trainers agree):", ""]
        lines += [f"    {name:28}" + "".join(f"{loss:12.6f}" for loss in found) for name, found in curves.items()]
        job = {**common, "count": arguments.samples, "mean": arguments.mean, "batch": 8, "epochs": 1}
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(arguments.rounds):
            for name in names:
                runs[name].append(in_process(name, job, peers))
    tokens = sum(len(ids) for ids, _ in samples(arguments.samples, arguments.mean))
    trained = sum(sum(mask) for _, mask in samples(arguments.samples, arguments.mean))
    head = SHAPE["vocab_size"] * SHAPE["hidden_size"]  # a product for trained tokens alone; the embedding is none
    useful = 6 * (_parameters() - head + head * trained / tokens)
    ceiling = peak(arguments.threads)
    lines += [
        "",
        f"{arguments.samples} samples, {tokens} tokens, {_parameters() / 1e6:.1f} M parameters, {arguments.threads} "
        f"thread(s), medians of {arguments.rounds} interleaved rounds:",
        "",
        f"    {'':28}{'tokens/s':>10}{'per CPU-s':>11}{'MFU':>7}{'memory':>11}{'ours is':>10}{'of memory':>11}",
    ]
    for name in names:
        speed = statistics.median(tokens / run["seconds"] for run in runs[name])
        cpu = statistics.median(tokens / run["cpu"] for run in runs[name])
        memory = statistics.median(run["memory"] for run in runs[name])
        pairs = list(zip(runs["ours"], runs[name], strict=True))
        faster = statistics.median(theirs["seconds"] / mine["seconds"] for mine, theirs in pairs)
        less = statistics.median(mine["memory"] / theirs["memory"] for mine, theirs in pairs)
        lines.append(
            f"    {name:28}{speed:>10,.0f}{cpu:>11,.0f}{useful * speed / ceiling:>7.0%}"
            f"{memory / 2**20:>7,.0f} MiB{faster:>8.2f} x{less:>9.2f} x"
        )
    lines += [
        "",
        f"A matrix product reaches {ceiling / 1e9:,.0f} GFLOP/s here; MFU: 6 operations a weight and token.",
    ]
    return "\n".join(lines)


def _parameters() -> int:
    width, inner, layers = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["num_hidden_layers"]
    head = width // SHAPE["num_attention_heads"]
    attention = 2 * width * width + 2 * width * head * SHAPE["num_key_value_heads"]
    return int(SHAPE["vocab_size"] * width + layers * (attention + 3 * width * inner))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder with trl, datasets and accelerate; filled where it is empty")
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--mean", type=float, default=90.0, help="of a sample's tokens, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cap", type=int, default=2048, help="most tokens of one micro-batch of ours")
    parser.add_argument("--write", action="store_true", help="put the figures into training.md")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(CONTENDERS[arguments.contender](json.loads(arguments.job))))
        return
    told = compare(arguments)
    print(told)
    if arguments.write:
        RESULT.write_text(f"# Training beside other trainers\n\nMade by `python benchmarks/training.py`.\n\n{told}\n")


if __name__ == "__main__":
    main()

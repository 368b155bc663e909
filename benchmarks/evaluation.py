"""Requests scored per second of processor time, beside lm-evaluation-harness, on one model and one set of items.

    python benchmarks/evaluation.py                   # ours alone: option texts, 0 and 5 shots
    python benchmarks/evaluation.py --peers VENV      # beside lm-eval, which VENV has: "lm-eval[hf]==0.4.13"
    python benchmarks/evaluation.py --write           # also put the figures into benchmarks/evaluation.md

A random Llama of 4 layers × 256 and a vocabulary of 8,192; multiple-choice items with four options, asked for by the
whole text of each option, after 0 or 5 shots. Every contender is a process of its own on one thread, is given the same
prompts as text, and is timed from there: tokenising included, loading and one small run before not. Contenders take
turns; lm-eval has several batch sizes, of which its best counts. Processor time, because the machine is shared.
Every likelihood must be the same within 1e-4 nats, else there is no figure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
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
BATCHES = (1, 8, 16)  # of lm-eval; more is slower on a processor: padding, and all positions times the vocabulary
WANTED = {0: 3.0, 5: 8.0}
CLOSE = 1e-4
WORDS = ("lock", "weir", "bridge", "tower", "mill", "quay", "lamp", "north", "old", "new", "long", "deep", "iron")


def items(count: int, seed: int) -> list[dict[str, Any]]:
    """Questions of 40 to 70 words with options of two to six."""
    draw = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(f"{draw.choice(WORDS)} {draw.randrange(90)}" for _ in range(draw.randrange(low, high)))

    return [{"question": text(20, 35), "options": [text(1, 4) for _ in range(4)]} for _ in range(count)]


def requests(count: int, shots: int) -> list[tuple[str, str]]:
    """(context, continuation) of every option of every item, behind the same shots."""
    form = "Question: {question}\nAnswer:".format
    shown = "".join(f"{form(**one)} {one['options'][0]}\n\n" for one in items(shots, 1))
    return [(shown + form(**one), f" {option}") for one in items(count, 2) for option in one["options"]]


def make_model(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|end|>"], initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator([one["question"] for one in items(200, 3)], trainer)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=4096, initializer_range=0.1, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "<|end|>", "pad_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))


# -- the contenders, each in a process of its own --------------------------------------------------------------------

Score = Callable[[list[tuple[str, str]]], list[float]]


def ours(folder: str, batch: str) -> Score:
    from ilab.models.likelihood import encode_pair, score_all
    from ilab.models.likelihood_local import LocalLikelihoods
    from ilab.models.local import LocalModel

    model = LocalModel.load(Path(folder), "cpu", 1)
    likelihoods = LocalLikelihoods(model)

    def score(asked: list[tuple[str, str]]) -> list[float]:
        return [one.total for one in score_all(likelihoods, [encode_pair(model.renderer, *pair) for pair in asked])]

    return score


def harness(folder: str, batch: str) -> Score:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=int(batch))

    def score(asked: list[tuple[str, str]]) -> list[float]:
        made = [Instance("loglikelihood", {}, pair, at) for at, pair in enumerate(asked)]
        return [float(value) for value, _ in lm.loglikelihood(made, disable_tqdm=True)]

    return score


CONTENDERS = {"ours": ours, "harness": harness}


def child(who: str, folder: str, batch: str, count: str, shots: str) -> None:
    import torch

    torch.set_num_threads(1)
    score = CONTENDERS[who](folder, batch)
    asked = requests(int(count), int(shots))
    score(asked[:8])
    began = time.process_time()
    values = score(asked)
    print(json.dumps({"seconds": time.process_time() - began, "values": values}))


def measure(python: str, who: str, folder: Path, batch: int, count: int, shots: int) -> tuple[float, list[float]]:
    """(processor seconds, likelihoods) of one run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [python, __file__, "--child", who, str(folder), str(batch), str(count), str(shots)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["values"]


# -- side by side ----------------------------------------------------------------------------------------------------


def compare(peer: str | None, count: int, rounds: int) -> list[dict[str, Any]]:
    """One row of figures for each number of shots: requests per processor second, and the ratio in the medians."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        make_model(folder)
        for shots in WANTED:
            seconds: dict[str, list[float]] = {}
            reference: list[float] = []
            names = [("ours", 0), *(("harness", batch) for batch in BATCHES if peer)]
            for _ in range(rounds):
                for who, batch in names:
                    python = peer if who == "harness" and peer else sys.executable
                    taken, values = measure(python, who, folder, batch, count, shots)
                    reference = reference or values
                    apart = max(abs(a - b) for a, b in zip(values, reference, strict=True))
                    if not apart <= CLOSE:
                        raise SystemExit(f"{who} with batches of {batch} differs by {apart:.2g} nats")
                    seconds.setdefault("ours" if who == "ours" else f"lm-eval, batch {batch}", []).append(taken)
                    print(f"{shots} shots, {who} {batch or ''}: {taken:.2f} s", file=sys.stderr)
            medians = {name: statistics.median(taken) for name, taken in seconds.items()}
            rows.append({"shots": shots, "requests": 4 * count, "seconds": medians})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| shots | scored by | processor time of 1,000 requests | requests per processor second | beside ours |"]
    lines.append("| ---: | --- | ---: | ---: | ---: |")
    for row in rows:
        for name, taken in row["seconds"].items():
            rate, ratio = row["requests"] / taken, taken / row["seconds"]["ours"]
            lines.append(f"| {row['shots']} | {name} | {1000 / rate:.2f} s | {rate:,.0f} | {ratio:.1f} × |")
    for row in rows:
        others = [taken for name, taken in row["seconds"].items() if name != "ours"]
        if others:
            ratio, wanted = min(others) / row["seconds"]["ours"], WANTED[row["shots"]]
            verdict = "reached" if ratio >= wanted else "NOT reached"
            lines.append(f"\n{row['shots']} shots: {ratio:.1f} × lm-eval's best; wanted {wanted:g} ×: {verdict}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="environment in which lm-eval is installed")
    parser.add_argument("--items", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    peer = str(given.peers.absolute() / "bin" / "python") if given.peers else None
    text = table(compare(peer, given.items, given.rounds))
    print(text)
    if given.write:
        how = (
            f"Made by `benchmarks/evaluation.py`: {4 * given.items:,} requests by option text, the median of "
            f"{given.rounds} rounds in turns, one thread, float32. All likelihoods agree within 1e-4 nats."
        )
        RESULT.write_text(f"# Scoring by likelihood\n\n{how}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the options of ``ilab model train`` mean: pipeline parameters, or nothing any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ilab.cli.old_options import OldOptions
from ilab.errors import InputError

OLD = OldOptions(
    taken={
        "--checkpoint-at-epoch": "candidates are saved after every epoch (-p output_checkpoint_frequency=N)",
        "--data-output-dir": "tokenised data lies beside the run's state in the store",
        "--disable-accelerate-full-state-at-epoch": "only the newest state is kept, and only while it trains",
        "--disable-flash-attn": "attention is torch's own",
        "--distributed-backend": "several devices share the model by FSDP2",
        "--enable-serving-output": "no server is started to choose a checkpoint",
        "--force-clear-phased-cache": "results are found by what they are made from: other data is trained on anew",
        "--is-padding-free": "the planner packs samples or not, and the loss is the same",
        "--local": "models are always folders on this machine",
        "--rdzv-endpoint": "one machine trains",
        "--rdzv-id": "one machine trains",
        "--skip-preprocessing": "what was prepared is found again by itself",
        "--skip-quantize/-sq": "weights are put in four bits by --method qlora alone",
        "--skip-user-confirm/-y": "nothing is asked, and an interrupted run goes on where it was",
        "--training-journal": "the store knows which steps are done",
    },
    refused={
        "--deepspeed-cpu-offload-optimizer": "to save memory: -p train_optimizer=adamw_8bit, or --method lora",
        "--deepspeed-cpu-offload-optimizer-ratio": "to save memory: -p train_optimizer=adamw_8bit",
        "--deepspeed-cpu-offload-optimizer-pin-memory": "to save memory: -p train_optimizer=adamw_8bit",
        "--fsdp-cpu-offload-optimizer": "to save memory: -p train_optimizer=adamw_8bit, or --method lora",
        "--gguf-model-path": "give the Hugging Face directory of the model with --model-path",
        "--iters": "give --num-epochs",
        "--model-id": "give the model's folder with --model-path",
        "--node-rank": "this command trains on one machine; --gpus says with how many devices",
        "--optimize-memory": "use -p train_precision=bf16, or --set where.train.activation_checkpointing=true",
        "--phased-mt-bench-judge": "checkpoints are chosen by --select score (the taxonomy's questions), or loss",
        "--tokenizer-dir": "the tokenizer is the one in the folder of --model-path",
    },
    flags=frozenset(
        {
            "--checkpoint-at-epoch",
            "--disable-accelerate-full-state-at-epoch",
            "--disable-flash-attn",
            "--enable-serving-output",
            "--force-clear-phased-cache",
            "--local",
            "--optimize-memory",
            "--skip-preprocessing",
            "--skip-quantize/-sq",
            "--skip-user-confirm/-y",
        }
    ),
)
# Option -> parameters. One of a phase beats one of the whole run.
BOTH = {
    "num_epochs": "train_epochs_phase_{}",
    "effective_batch_size": "train_effective_batch_size_phase_{}",
    "learning_rate": "train_learning_rate_phase_{}",
    "warmup_steps": "train_num_warmup_steps_phase_{}",
}
ONE = {
    "max_seq_len": "train_sequence_length",
    "max_batch_len": "train_max_batch_len",
    "lora_alpha": "train_lora_alpha",
    "lora_dropout": "train_lora_dropout",
    "select": "train_select",
    "validation_share": "train_validation_share",
}
# What an adapter is usually trained with (QLoRA, arXiv 2305.14314, appendix B.2).
ADAPTER_RATE, ADAPTER_BATCH = 2e-4, 16
BATCH = {"train_batch_size", "train_gradient_accumulation_steps", "train_num_workers"}


def parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline parameters that the options are; those that were not given are left out."""
    named: dict[str, Any] = {name: given[option] for option, name in ONE.items()}
    for option, name in BOTH.items():
        for phase in (1, 2):
            special = given.get(f"phased_phase{phase}_{option}")
            named[name.format(phase)] = given[option] if special is None else special
    named["train_lora_rank"] = given["lora_rank"] or None
    named["train_lora_targets"] = ",".join(given["lora_target_modules"]) or None
    named["train_save_samples"] = _save_samples(given)
    return {name: value for name, value in named.items() if value is not None}


def adapter_defaults(unsaid: set[str]) -> dict[str, Any]:
    """Parameters for an adapter, as far as nobody has said anything: ``unsaid`` are those left at their defaults."""
    usual: dict[str, Any] = {"train_learning_rate": ADAPTER_RATE}
    if unsaid >= BATCH:
        usual |= {BOTH["effective_batch_size"].format(phase): ADAPTER_BATCH for phase in (1, 2)}
    return {name: value for name, value in usual.items() if name in unsaid}


def _save_samples(given: Mapping[str, Any]) -> int | None:
    """Samples between two candidates; 0 in each of the options means that it is not said."""
    names = ("save_samples", "phased_phase1_samples_per_save", "phased_phase2_samples_per_save")
    amounts = {given[name] for name in names} - {None, 0}
    if len(amounts) > 1:
        raise InputError("both phases save after the same number of samples", hint="give --save-samples N alone")
    return amounts.pop() if amounts else None

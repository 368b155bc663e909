"""What the options of ``ilab model train`` mean: pipeline parameters, or nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ilab.cli.old_options import OldOptions
from ilab.cli.train_job import MANIFEST_OPTIONS
from ilab.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
POSITIVE, RATE, SHARE = click.IntRange(1), click.FloatRange(0, min_open=True), click.FloatRange(0, 1, max_open=True)


def _one_machine(_: click.Context, __: click.Parameter, value: int | None) -> None:
    if value is not None and value > 1:
        raise InputError(
            "several machines are a matter of where training runs",
            hint=f"--set where.train.nodes={value} --set where.train.master=HOST:PORT; the first prints what to type "
            "on the others",
        )


OPTIONS = (
    click.option("--data-path", metavar="FILE|DIR", help="Train on this file, or on the newest of a folder."),
    click.option("--input-dir", metavar="DIR", help="Newest train_* and test_* of a folder: answers before and after."),
    click.option(
        "--strategy",
        type=click.Choice(["lab-multiphase", "lab-skills-only", "stacked"]),
        help="Knowledge, then skills; skills alone; or both in one run, which is recommended on files.",
    ),
    click.option("--phased-phase1-data", metavar="FILE", help="Data of the knowledge phase."),
    click.option("--phased-phase2-data", metavar="FILE", help="Data of the skills phase."),
    click.option(
        "--model-path", "--model-dir", "--model-name", "model_path", metavar="DIR", help="Model to train, or `tiny`."
    ),
    click.option(
        "--chat-template",
        metavar="NAME|FILE",
        help="Chat template of the base: granite, llama, mistral, qwen, chatml, instructlab, or a file; none for plain "
        "text alone.  [default: its own]",
    ),
    click.option(
        "--pipeline", type=click.Choice(["simple", "full", "accelerated"]), help="simple: QLoRA; else all weights."
    ),
    click.option("--method", type=click.Choice(["full", "lora", "qlora", "osft"]), help="What is trained."),
    click.option("--num-epochs", type=POSITIVE, metavar="N", help="Times that all rows are seen."),
    click.option("--effective-batch-size", type=POSITIVE, metavar="N", help="Samples of one update, over all devices."),
    click.option("--learning-rate", type=RATE, metavar="RATE", help="Of AdamW, after the warm-up."),
    click.option("--warmup-steps", type=click.IntRange(0), metavar="N", help="Updates until the full learning rate."),
    click.option("--max-seq-len", type=POSITIVE, metavar="TOKENS", help="Longer samples are left out."),
    click.option("--max-batch-len", type=POSITIVE, metavar="TOKENS", help="Most tokens on a device at once."),
    click.option("--save-samples", type=click.IntRange(0), metavar="N", help="Samples between two candidates."),
    *(
        click.option(
            f"--phased-phase{phase}-{name}", type=kind, metavar=metavar, help=f"--{name} of phase {phase} alone."
        )
        for name, kind, metavar in (
            ("num-epochs", POSITIVE, "N"),
            ("effective-batch-size", POSITIVE, "N"),
            ("learning-rate", RATE, "RATE"),
        )
        for phase in (1, 2)
    ),
    *(click.option(f"--phased-phase{phase}-samples-per-save", type=click.IntRange(0), hidden=True) for phase in (1, 2)),
    click.option("--lora-rank", type=click.IntRange(0), metavar="N", help="Rank of an adapter; 0: all weights."),
    click.option("--lora-alpha", type=POSITIVE, metavar="N", help="Its scale, over the rank."),
    click.option("--lora-dropout", type=SHARE, metavar="SHARE", help="Dropout before it."),
    click.option("--lora-target-modules", multiple=True, metavar="NAMES", help="Linear layers, as q_proj,v_proj."),
    click.option("--lora-quantize-dtype", type=click.Choice(["nf4", "none"]), help="nf4: beside weights in four bits."),
    click.option("--4-bit-quant", "four_bits", is_flag=True, hidden=True),
    click.option("--select", type=click.Choice(["auto", "score", "loss", "last"]), help="What chooses a checkpoint."),
    click.option("--validation-share", type=SHARE, metavar="SHARE", help="Rows held out of training, for their loss."),
    click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, mps.  [config: where.device]"),
    click.option("--gpus", "--nproc-per-node", "gpus", type=POSITIVE, metavar="N", help="Devices that train together."),
    click.option("--nnodes", type=POSITIVE, hidden=True, expose_value=False, callback=_one_machine),
    click.option("--ckpt-output-dir", metavar="DIR", help="Copy the chosen checkpoint below this folder."),
    click.option(
        "--phased-base-dir", metavar="DIR", help="Copy the chosen checkpoint of each phase below this folder."
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done, what it takes and where; train nothing."),
    *MANIFEST_OPTIONS,
    click.option("-p", "parameters_", multiple=True, metavar="NAME=VALUE", help="Set a pipeline parameter."),
)
OLD = OldOptions(
    taken={
        "--checkpoint-at-epoch": "candidates are saved after every epoch (-p output_checkpoint_frequency=N)",
        "--data-dir": "what was prepared is found again by itself",
        "--data-output-dir": "tokenised data lies beside the run's state in the store",
        "--disable-accelerate-full-state-at-epoch": "only the newest state is kept, and only while it trains",
        "--disable-flash-attn": "attention is torch's own",
        "--distributed-backend": "several devices share the model by FSDP2",
        "--enable-serving-output": "no server is started to choose a checkpoint",
        "--force-clear-phased-cache": "results are found by what they are made from: other data is trained on anew",
        "--is-padding-free": "the planner packs samples or not, and the loss is the same",
        "--local": "models are always folders on this machine",
        "--rdzv-endpoint": "machines meet at where.train.master",
        "--rdzv-id": "machines meet at where.train.master",
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
        "--node-rank": "the first machine prints the line to type on the others (--set where.train.nodes=N)",
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


def training_options(command: F) -> F:
    """Add the options of a training, in the order in which the help shows them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


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


def template_choice(folder: Path, choice: str) -> str:
    """What ``--chat-template`` means as a parameter: a name as it is, a file relative to ``folder`` by its path."""
    from ilab.models.templates import ALIASES, TEMPLATES

    path = (folder / Path(choice).expanduser()).resolve()
    return str(path) if choice not in (*TEMPLATES, *ALIASES) and path.is_file() else choice


def _save_samples(given: Mapping[str, Any]) -> int | None:
    """Samples between two candidates; 0 in each of the options means that it is not said."""
    names = ("save_samples", "phased_phase1_samples_per_save", "phased_phase2_samples_per_save")
    amounts = {given[name] for name in names} - {None, 0}
    if len(amounts) > 1:
        raise InputError("both phases save after the same number of samples", hint="give --save-samples N alone")
    return amounts.pop() if amounts else None

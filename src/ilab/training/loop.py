"""The training loop: full fine-tuning, exact whatever the batch layout, resumable at every step.

    for each step of the plan:
        backward on the summed loss of each micro-batch / the step's token count
        clip, AdamW, learning rate
    every ``save_every`` epochs, and at the end: a candidate, a Hugging Face directory

Packed rows get restarting positions and no attention mask, which transformers' attention reads as separate documents
(equal to 1e-7, measured); padded rows need no mask either, since the padding stands behind the tokens. Before the
first step the loop checks on the real model that its chunked loss equals the model's own logits.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ilab.core.events import Emit
from ilab.core.files import take_over
from ilab.data import seed_from
from ilab.errors import InputError, SetupError, Stopped
from ilab.models.weights import load_weights, saving
from ilab.training.encode import EncodedSet
from ilab.training.loss import IGNORED, Head, summed_loss
from ilab.training.plan import Layout, MicroBatch, StepPlan, choose_layout, plan_epoch, steps_per_epoch
from ilab.training.state import load_state, save_state

SAVE_STATE_EVERY = 20.0  # seconds between two resume states; never changes the result
NOT_WEIGHTS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class TrainSettings(BaseModel):
    """What is trained and how; every field changes the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(gt=0)
    batch: int = Field(gt=0, description="samples per optimizer step")
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    precision: Literal["fp32", "bf16"] = "fp32"
    max_length: int = Field(gt=1, description="tokens of the longest sample")
    max_batch_tokens: int = Field(gt=1, description="tokens of one micro-batch on a device, padding included")
    layout: Layout = "auto"
    save_every: int = Field(1, gt=0, description="epochs between two candidates")
    validation: float = Field(0.0, ge=0, lt=1, description="share of the rows held out of training")
    seed: int = 42


@dataclass(frozen=True)
class TrainJob:
    """Everything one run needs. ``work`` survives a crash; ``out`` receives the finished candidates."""

    data: EncodedSet
    held_out: EncodedSet
    base: Path
    out: Path
    work: Path
    settings: TrainSettings
    device: str
    threads: int
    emit: Emit
    stopping: Callable[[], bool]


def train(job: TrainJob) -> list[dict[str, Any]]:
    """Run, or go on with, a job. Returns the index of candidates, earliest first.

    Raises ``Stopped`` after saving when ``job.stopping`` turns true, and ``InputError`` when the loss is no number.
    """
    torch.set_num_threads(job.threads)
    settings = job.settings
    layout = choose_layout(job.data.lengths, job.device) if settings.layout == "auto" else settings.layout
    cap = max(settings.max_batch_tokens, *job.data.lengths)
    model = load_weights(job.base, torch.float32, job.device)
    check_loss(model, job.data)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    done = load_state(job.work, model, optimizer)
    progress = _Progress(job, steps_per_epoch(len(job.data.ids), settings.batch) * settings.epochs, done)
    with progress:
        model.train()
        _run_epochs(model, optimizer, job, progress, (cap, layout))
    return _collect(job, progress)


def held_out_loss(model: Any, job: TrainJob) -> float | None:
    """Mean loss (nats per trained token) of the rows held out of training; None where there are none."""
    if not job.held_out.ids:
        return None
    total, head = 0.0, head_of(model)
    model.eval()
    with torch.no_grad(), _precision(job.settings, job.device):
        for index in range(len(job.held_out.ids)):
            ids, labels, _ = _tensors(MicroBatch(((index,),)), job.held_out, model.device)
            total += summed_loss(hidden_states(model, ids, None), labels, head).item()
    model.train()
    return round(total / sum(job.held_out.trained_counts), 6)


def _run_epochs(
    model: Any, optimizer: torch.optim.Optimizer, job: TrainJob, progress: _Progress, shape: tuple[int, Layout]
) -> None:
    """All steps that are not done yet. ``shape`` is the micro-batch cap in tokens and the layout."""
    settings, done, step = job.settings, progress.done, 0
    for epoch in range(settings.epochs):
        plans = plan_epoch(
            job.data.lengths,
            job.data.trained_counts,
            epoch,
            batch=settings.batch,
            cap=shape[0],
            seed=settings.seed,
            layout=shape[1],
        )
        for plan in plans:
            step += 1
            if step <= done:
                continue
            metrics = _update(model, optimizer, job, plan, step, progress.total)
            progress.report(epoch, step, plan, metrics)
            if job.stopping():
                save_state(job.work, step, model, optimizer)
                raise Stopped(
                    f"training stopped after step {step} of {progress.total}",
                    hint="the state is saved; run the same command to go on from there",
                )
            if progress.state_due():
                save_state(job.work, step, model, optimizer)
        due = (epoch + 1) % settings.save_every == 0 or epoch + 1 == settings.epochs
        # ``step == done`` is a run that was killed between the state and the candidate of the same step.
        if due and (step > done or (step == done and not _candidate(job, epoch + 1).exists())):
            _save_candidate(model, job, epoch + 1, step)
            save_state(job.work, step, model, optimizer)


def head_of(model: Any) -> Head:
    """Hidden states to logits, with the scaling some families put behind the output matrix."""
    output: Head = model.get_output_embeddings()
    scale = getattr(model.config, "logits_scaling", None)  # Granite divides its logits
    if scale in (None, 1.0):
        return output
    return lambda states: output(states) / scale


def hidden_states(model: Any, ids: Tensor, positions: Tensor | None) -> Tensor:
    """The last hidden states [rows, length, width]; ``positions`` restart at each packed sample."""
    extra = {} if positions is None else {"position_ids": positions}
    body = getattr(model, model.base_model_prefix)
    states: Tensor = body(input_ids=ids, use_cache=False, **extra).last_hidden_state
    return states


def check_loss(model: Any, data: EncodedSet) -> None:
    """The chunked loss must equal the one from the model's own logits, on the longest sample."""
    index = max(range(len(data.ids)), key=lambda i: len(data.ids[i]))
    ids, labels, _ = _tensors(MicroBatch(((index,),)), data, model.device)
    model.eval()
    with torch.no_grad():
        ours = summed_loss(hidden_states(model, ids, None), labels, head_of(model)).item()
        logits = model(input_ids=ids, use_cache=False).logits.float()
        theirs = torch.nn.functional.cross_entropy(
            logits[0, :-1], labels[0, 1:], reduction="sum", ignore_index=IGNORED
        ).item()
    if not math.isclose(ours, theirs, rel_tol=1e-3, abs_tol=1e-3):
        raise SetupError(
            f"this model family computes its logits in a way the trainer does not know (loss {ours:.4f}, not "
            f"{theirs:.4f})",
            hint="report the model's config.json as an issue",
        )


def _update(
    model: Any, optimizer: torch.optim.Optimizer, job: TrainJob, plan: StepPlan, step: int, total: int
) -> dict[str, float]:
    """One optimizer step. The randomness of a step (dropout) is a function of the step alone."""
    settings = job.settings
    torch.manual_seed(seed_from(f"step {step}", settings.seed))
    rate = settings.learning_rate * _schedule(settings, step, total)
    for group in optimizer.param_groups:
        group["lr"] = rate
    head, loss_sum = head_of(model), 0.0
    for micro_batch in plan.micro_batches:
        ids, labels, positions = _tensors(micro_batch, job.data, model.device)
        with _precision(settings, job.device):
            loss = summed_loss(hidden_states(model, ids, positions), labels, head)
        (loss / plan.divisor).backward()  # type: ignore[no-untyped-call]
        loss_sum += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip).item()
    if not math.isfinite(loss_sum) or not math.isfinite(norm):
        raise InputError(
            f"the loss is no number at step {step}",
            hint=f"lower train_learning_rate (now {settings.learning_rate}) and run again",
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss_sum / plan.divisor, "gradient_norm": norm, "learning_rate": rate}


def _schedule(settings: TrainSettings, step: int, total: int) -> float:
    """Share of the learning rate at ``step`` (1-based): linear warm-up, then constant or cosine down to 5 %."""
    if step <= settings.warmup_steps:
        return step / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    progress = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))


def _precision(settings: TrainSettings, device: str) -> AbstractContextManager[Any]:
    if settings.precision == "bf16":
        return torch.autocast(device.split(":", maxsplit=1)[0], dtype=torch.bfloat16)
    return nullcontext()


def _tensors(micro_batch: MicroBatch, data: EncodedSet, device: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Ids, labels and, for packed rows, positions, each [rows, longest]. No mask: see the module docstring."""
    rows = [[i for index in row for i in data.ids[index]] for row in micro_batch.rows]
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED, dtype=torch.long)
    packed = any(len(row) > 1 for row in micro_batch.rows)
    positions = torch.zeros(len(rows), longest, dtype=torch.long) if packed else None
    for at, row in enumerate(micro_batch.rows):
        start = 0
        for index in row:
            end = start + len(data.ids[index])
            segment = torch.tensor(data.ids[index])
            ids[at, start:end] = segment
            labels[at, start:end] = torch.where(torch.tensor(data.trained[index]), segment, IGNORED)
            labels[at, start] = IGNORED  # nothing stands before a segment's first token
            if positions is not None:
                positions[at, start:end] = torch.arange(end - start)
            start = end
    return ids.to(device), labels.to(device), positions if positions is None else positions.to(device)


def _candidate(job: TrainJob, epoch: int) -> Path:
    return job.work / "candidates" / f"epoch-{epoch:03d}"


def _save_candidate(model: Any, job: TrainJob, epoch: int, step: int) -> None:
    """A Hugging Face directory under ``work/candidates``, whole or not there."""
    final = _candidate(job, epoch)
    temporary = job.work / f".epoch-{epoch:03d}"
    if temporary.exists():
        shutil.rmtree(temporary)
    with saving(temporary):
        model.save_pretrained(temporary)
    for name in NOT_WEIGHTS:
        if (job.base / name).exists():
            shutil.copyfile(job.base / name, temporary / name)
    cursor = {"epoch": epoch, "step": step, "loss": held_out_loss(model, job)}
    (temporary / "cursor.json").write_text(json.dumps(cursor))
    if final.exists():
        shutil.rmtree(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(final)


def _collect(job: TrainJob, progress: _Progress) -> list[dict[str, Any]]:
    """Move the candidates and the metrics into the artifact."""
    index = []
    rows = list(progress.rows())
    for folder in sorted((job.work / "candidates").iterdir()):
        cursor = json.loads((folder / "cursor.json").read_text())
        losses = [row["loss"] for row in rows if row["epoch"] == cursor["epoch"] - 1]
        # Linked, not moved: a crash here leaves the candidates where a resumed run finds them.
        shutil.copytree(folder, job.out / folder.name, copy_function=take_over, ignore=_without_cursor)
        index.append({"name": folder.name, **cursor, "training_loss": _mean(losses)})
    with (job.out / "metrics.jsonl").open("w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    return index


def _without_cursor(_folder: str, _names: list[str]) -> set[str]:
    return {"cursor.json"}


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


class _Progress:
    """Metrics on disk (work/metrics.jsonl), events, ETA, and when the next resume state is due."""

    def __init__(self, job: TrainJob, total: int, done: int) -> None:
        self.job, self.total, self.done = job, total, done
        self.path = job.work / "metrics.jsonl"
        kept = [row for row in self.rows() if row["step"] <= done]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")
        self._began = self._saved = self._told = time.monotonic()
        self._tokens = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def rows(self) -> Iterator[dict[str, Any]]:
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                yield json.loads(line)
            except ValueError:  # torn by a crash: its step is trained again
                return

    def report(self, epoch: int, step: int, plan: StepPlan, metrics: dict[str, float]) -> None:
        row = {"step": step, "epoch": epoch, "tokens": plan.tokens, "trained_tokens": plan.divisor, **metrics}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._tokens += plan.tokens
        now = time.monotonic()
        if now - self._told > 0.5 or step == self.total:
            self._told = now
            seconds = now - self._began
            self.job.emit.progress(
                step,
                self.total,
                "steps",
                note=f"loss {metrics['loss']:.3f}",
                tokens_per_second=round(self._tokens / max(seconds, 1e-9)),
                eta=round(seconds / max(step - self.done, 1) * (self.total - step), 1),
            )
            self.job.emit.metric(step=step, epoch=epoch, **metrics)

    def state_due(self) -> bool:
        if time.monotonic() - self._saved < SAVE_STATE_EVERY:
            return False
        self._saved = time.monotonic()
        return True

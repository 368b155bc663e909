"""The training loop: exact whatever the batch layout and the number of devices, resumable at every step.

    for each step of the plan:
        backward on the summed loss of each micro-batch / the step's token count
        clip, optimizer, learning rate
    whenever so much was trained, and at the end: a candidate, a Hugging Face directory

What is trained is the method's (:mod:`ilab.training.method`), who trains it together the world's
(:mod:`ilab.training.world`), what is seen when the plan's; the loop only goes through it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ilab.config import TrainWhere
from ilab.core.events import Emit
from ilab.data import seed_from
from ilab.errors import InputError, Stopped
from ilab.training import candidates
from ilab.training.architecture import architecture
from ilab.training.batch import tensors
from ilab.training.candidates import Cursor
from ilab.training.encode import EncodedSet
from ilab.training.estimate import load_of, step_flops
from ilab.training.export import export_model
from ilab.training.forward import LossModel, PackingError, check
from ilab.training.kernels import use_kernels
from ilab.training.method import Method, method_of, trained
from ilab.training.metrics import Gauge, Metrics, Spent, peak_memory
from ilab.training.optimizer import make_optimizer, schedule
from ilab.training.plan import MicroBatch, Shape, StepPlan, choose_layout, plan_epoch, steps_per_epoch
from ilab.training.probe import matrix_peak
from ilab.training.settings import TrainSettings
from ilab.training.sinks import following
from ilab.training.state import State, load_state, save_state
from ilab.training.world import World, whole


@dataclass(frozen=True)
class TrainJob:
    """Everything one run needs. ``work`` survives a crash; candidates are made below it."""

    data: EncodedSet
    held_out: EncodedSet
    base: Path
    work: Path
    settings: TrainSettings
    emit: Emit
    stopping: Callable[[], bool]
    threads: int = 1
    where: TrainWhere = field(default_factory=TrainWhere)
    dropped_tokens: int = 0  # of rows that were left out


def train(job: TrainJob, world: World) -> int:
    """Run, or go on with, a job: called by every process of ``world`` alike. Returns the number of its steps.

    Raises ``Stopped`` after saving when ``job.stopping`` turns true in any of them, and ``InputError`` when the loss is
    no number.
    """
    torch.set_num_threads(job.threads)
    run = _Run(job, world)
    total = steps_per_epoch(len(job.data.ids), job.settings.batch) * job.settings.epochs
    peak = world.total((matrix_peak(world.device, low=job.settings.precision == "bf16"),))[0]
    if not world.leads:
        run.go(total, None)
        return total
    done = run.cursor.steps
    with Metrics(job.work, job.emit, total, done, run.gauge(peak)) as metrics, following(job.where, job.work, done):
        run.go(total, metrics)
    return total


def rehearse(job: TrainJob, device: str) -> tuple[int, float]:
    """Two steps, each twice the largest micro-batch of the first epoch: the second one's tokens and seconds.

    Nothing is written, and no state of a run is read unless ``job.work`` holds one.
    """
    torch.set_num_threads(job.threads)
    run = _Run(job, World(0, 1, device))
    lengths = job.data.lengths
    plans = plan_epoch(lengths, job.data.trained_counts, 0, run.shape)
    micro_batches = (one for plan in plans for one in plan.micro_batches)
    largest = max(micro_batches, key=lambda one: load_of(one, lengths).tokens)
    members = [index for row in largest.rows for index in row]
    tokens = 2 * sum(lengths[index] for index in members)
    trained_tokens = 2 * sum(job.data.trained_counts[index] for index in members)
    plan = StepPlan((largest, largest), trained_tokens, tokens, 2 * load_of(largest, lengths).tokens, 2 * len(members))
    run.module.train()
    seconds = 0.0
    for step in (1, 2):
        began = time.monotonic()
        run.update(plan, step, 2)
        seconds = time.monotonic() - began
    return tokens, seconds


class _Run:
    """One process's part of a job, from its state on."""

    def __init__(self, job: TrainJob, world: World) -> None:
        self.job, self.world, self.settings = job, world, job.settings
        self.method: Method = method_of(self.settings)
        self.model: Any = self.method.load(job.base, world.device)
        use_kernels(self.model, job.where, world.device)
        self.module = LossModel(self.model)
        self.shape = self._shape()
        prepare(self.module, job, world)
        self.optimizer = make_optimizer(self.settings, trained(self.model), world.device)
        self.state = State(self.method.kept(self.model), trained(self.model), self.optimizer)
        self.cursor = Cursor(**load_state(job.work, self.state, world))
        self._saved = time.monotonic()
        self._validated: tuple[int, float | None] = (-1, None)

    def gauge(self, peak: float) -> Gauge:
        """What steps are measured against: ``peak`` operations a second of all devices together."""
        lengths = self.job.data.lengths
        try:
            model = architecture(self.model.config.to_dict())
        except InputError:  # it trains all the same; its operations are unknown
            return Gauge(lengths, None, peak, self.world.size, self.job.dropped_tokens)
        count = partial(step_flops, model, self.settings, lengths=lengths)
        return Gauge(lengths, count, peak, self.world.size, self.job.dropped_tokens)

    def _shape(self) -> Shape:
        """How samples become steps; the model is tried out first, on real samples."""
        settings, data = self.settings, self.job.data
        device, wanted = self.world.device, self.job.where.layout
        layout = choose_layout(data.lengths, device) if wanted == "auto" else wanted
        with _precision(settings, device):
            try:
                check(self.module, data, device, low=settings.precision == "bf16")
            except PackingError as leak:
                if wanted == "packed":
                    raise
                self.job.emit.metric(note=f"{leak.message}; each sample has a row of its own")
                layout = "bucketed"
        cap = max(settings.max_batch_tokens, *data.lengths)
        return Shape(settings.batch, cap, settings.seed, layout, self.world.size)

    def go(self, total: int, metrics: Metrics | None) -> None:
        """All steps that are not done yet, with their candidates."""
        self.module.train()
        at = Cursor()
        for epoch, plan, epochs in self._plans():
            before, at = at, Cursor(at.steps + 1, epochs, at.samples + plan.samples, at.tokens + plan.tokens)
            save = candidates.due(self.settings, before, at) or at.steps == total
            if at.steps > self.cursor.steps:
                stop = self._step(epoch, plan, at, (total, metrics, save))
                if stop or self._state_due():
                    self._keep()
                if stop:
                    raise Stopped(
                        f"training stopped after step {at.steps} of {total}",
                        hint="the state is saved; run the same command to go on from there",
                    )
            # A run that was killed between the state and the candidate of the same step is at this step, without it.
            if save and at.steps >= self.cursor.steps and not self._candidate(at).exists():
                self._save(at)
        self._prune()  # killed while it did

    def _plans(self) -> Iterator[tuple[int, StepPlan, int]]:
        """The epoch (0-based) of each step, its plan, and the number of epochs that are whole after it."""
        for epoch in range(self.settings.epochs):
            plans = plan_epoch(self.job.data.lengths, self.job.data.trained_counts, epoch, self.shape)
            for number, plan in enumerate(plans, 1):
                yield epoch, plan, epoch + (number == len(plans))

    def _step(self, epoch: int, plan: StepPlan, at: Cursor, told: tuple[int, Metrics | None, bool]) -> bool:
        """Train one step and report it. Returns whether to stop after it."""
        total, metrics, save = told
        began = time.monotonic()
        found, stop = self.update(plan, at.steps, total)
        spent = Spent(time.monotonic() - began, peak_memory(self.world.device))
        self.cursor = at
        validation = self._validation(at) if save else None
        if metrics is not None:
            metrics.report(epoch, at.steps, plan, {**found, **_known(validation_loss=validation)}, spent)
        return stop

    def update(self, plan: StepPlan, step: int, total: int) -> tuple[dict[str, float], bool]:
        """One optimizer step, and whether any process was told to stop.

        The randomness of a step (dropout) is a function of the step, the process and the micro-batch alone.
        """
        settings, world = self.settings, self.world
        rate = settings.learning_rate * schedule(settings, step, total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss_sum = 0.0
        torch.manual_seed(seed_from(f"step {step}" + f"/{world.rank}" * (world.rank > 0), settings.seed))
        for micro_batch in plan.of(world.rank, world.size):
            batch = tensors(micro_batch, self.job.data, world.device)
            with _precision(settings, world.device, sharded=world.size > 1):
                loss = self.module.loss(batch)
            # FSDP takes the mean of the processes' gradients; the sum is wanted.
            (loss * world.size / plan.divisor).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.item()
        self.method.before_update(self.model)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self._parameters(), settings.clip)))
        loss_sum, stop = world.total((loss_sum, float(self.job.stopping())))
        if not math.isfinite(loss_sum) or not math.isfinite(norm):
            raise InputError(
                f"the loss is no number at step {step}",
                hint=f"lower train_learning_rate (now {settings.learning_rate}) and run again",
            )
        self.optimizer.step()
        self.method.after_update(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss_sum / plan.divisor, "gradient_norm": norm, "learning_rate": rate}, stop > 0

    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(trained(self.model).values())

    def _state_due(self) -> bool:
        """By the clock of the first process: it decides for all."""
        mine = self.world.leads and time.monotonic() - self._saved >= self.job.where.state_seconds
        return self.world.total((float(mine),))[0] > 0

    def _keep(self) -> None:
        save_state(self.job.work, asdict(self.cursor), self.state, self.world)
        self._saved = time.monotonic()

    def _candidate(self, at: Cursor) -> Path:
        return candidates.folder_of(self.job.work, self.settings, at)

    def _save(self, at: Cursor) -> None:
        """A candidate, then the state, then the older candidates that are no longer wanted go."""
        folder = self._candidate(at)
        loss = self._validation(at)
        staged = self.job.work / "candidate"
        export_model(self.model, self.method, self.job.base, staged, self.world)
        if self.world.leads:
            candidates.note(staged, at, loss)
            folder.parent.mkdir(exist_ok=True)
            staged.rename(folder)
        self._keep()
        self._prune()

    def _prune(self) -> None:
        if self.world.leads:
            candidates.prune(self.job.work, self.settings.keep)

    def _validation(self, at: Cursor) -> float | None:
        """The loss of the held-out rows after step ``at``, computed once."""
        if self._validated[0] != at.steps:
            self._validated = at.steps, self._held_out_loss()
        return self._validated[1]

    @torch.no_grad()
    def _held_out_loss(self) -> float | None:
        """Mean loss (nats per trained token) of the rows held out of training; None where there are none."""
        data, world = self.job.held_out, self.world
        if not data.ids:
            return None
        total = 0.0
        self.module.eval()
        for start in range(0, len(data.ids), world.size):
            idle = start + world.rank >= len(data.ids)
            micro_batch = MicroBatch(((min(start + world.rank, len(data.ids) - 1),),), idle)
            with _precision(self.settings, world.device, sharded=world.size > 1):
                total += self.module.loss(tensors(micro_batch, data, world.device)).item()
        world.reshard(self.module)
        self.module.train()
        return round(world.total((total,))[0] / sum(data.trained_counts), 6)


def prepare(module: LossModel, job: TrainJob, world: World) -> None:
    """What makes it fit and go fast, layer by layer: checkpointing, compiling, sharding. Changes rounding alone."""
    layers = list(blocks(module.model))
    if job.where.activation_checkpointing:
        checkpoint_activations(module.model)
    if job.where.compile:
        for layer in layers:
            layer.compile()
    world.shard(module, layers, job.settings.precision == "bf16")


def checkpoint_activations(model: Any) -> None:
    """Keep the input of each layer only, and compute the rest again."""
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # what newer versions of transformers call it
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)


def blocks(model: Any) -> list[torch.nn.Module]:
    """The model's repeated layers: the longest list of modules it has."""
    lists = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


def _known(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _precision(settings: TrainSettings, device: str, sharded: bool = False) -> AbstractContextManager[Any]:
    """Autocast for bf16; sharded parameters are cast as they are gathered."""
    if settings.precision == "bf16" and not sharded:
        return torch.autocast(device.split(":", maxsplit=1)[0], dtype=torch.bfloat16)
    return nullcontext()

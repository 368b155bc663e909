"""What training will take, before it starts: memory of each device, disk, tokens, steps, and time.

A closed form of ``config.json``, the settings and the lengths of the samples; no weight is loaded. The terms follow the
loop: what the method holds, what autograd keeps of the longest planned micro-batch, the logits of one chunk. The tests
compare them with what autograd really keeps, and with the memory of real runs. :mod:`ilab.training.probe` corrects
them by one step of the real model.

Bytes throughout; *tokens* are those that are computed, padding included, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ilab.config import TrainWhere
from ilab.training.architecture import Architecture, architecture
from ilab.training.memory import EIGHT_BITS, Load, Machine, Memory, frozen_beside, memory_of, trained_parameters
from ilab.training.plan import Layout, MicroBatch, Shape, StepPlan, choose_layout, plan_epoch
from ilab.training.settings import TrainSettings

ROOM = 0.95  # of the memory that is free: the rest is lost between allocations
LARGEST = 1 << 18  # tokens of a micro-batch, at which the search ends


@dataclass(frozen=True)
class Disk:
    """Bytes that one run writes: states (the old one goes when the new one is whole), candidates, the job's data."""

    state: int
    candidate: int
    candidates: int
    data: int

    @property
    def total(self) -> int:
        return 2 * self.state + self.candidates * self.candidate + self.data


@dataclass(frozen=True)
class Estimate:
    """``tokens`` are those of the samples, over all epochs; ``micro_batch`` is the largest planned one.

    ``largest_micro_batch`` is the most tokens that fit (None where the memory is unknown, 0 where nothing does), and
    ``change`` the settings (name, value) that make it fit where it does not; empty too where nothing known would.
    """

    parameters: int
    trained: int
    memory: Memory
    disk: Disk
    machine: Machine
    tokens: int
    steps: int
    micro_batch: int
    largest_micro_batch: int | None = None
    change: tuple[tuple[str, str], ...] = ()

    @property
    def fits(self) -> bool:
        """Whether memory is enough, as far as anybody knows."""
        return self.machine.memory is None or self.memory.total <= ROOM * self.machine.memory

    @property
    def seconds(self) -> float | None:
        return self.tokens / self.machine.speed if self.machine.speed else None

    def as_json(self) -> dict[str, Any]:
        told = asdict(self)
        told["memory"]["total"] = self.memory.total
        told["disk"]["total"] = self.disk.total
        return {**told, "fits": self.fits, "seconds": self.seconds}


def estimate(
    config: Mapping[str, Any], settings: TrainSettings, lengths: Sequence[int], machine: Machine, where: TrainWhere
) -> Estimate:
    """For samples of ``lengths`` (tokens) and a model with this ``config.json``.

    Raises ``InputError`` for a model that transformers does not know.
    """
    model = architecture(config)
    plans = list(_plans(settings, lengths, machine, where))
    load = largest_load(plans, lengths)
    steps = len(plans) * settings.epochs
    made = Estimate(
        parameters=model.parameters,
        trained=trained_parameters(model, settings),
        memory=memory_of(model, settings, load, machine, where),
        disk=disk_of(model, settings, lengths, steps),
        machine=machine,
        tokens=sum(lengths) * settings.epochs,
        steps=steps,
        micro_batch=load.tokens,
    )
    if machine.memory is None:
        return made
    largest = largest_micro_batch(config, settings, machine, where, packed=load.packed)
    made = replace(made, largest_micro_batch=largest)
    return made if made.fits else replace(made, change=_change(config, settings, lengths, machine, where))


def largest_micro_batch(
    config: Mapping[str, Any], settings: TrainSettings, machine: Machine, where: TrainWhere, *, packed: bool = False
) -> int:
    """The most tokens of a micro-batch that fit into ``machine.memory``; 0 where not even one does."""
    model = architecture(config)

    def fits(tokens: int) -> bool:
        row = tokens if packed else min(tokens, settings.max_length)
        needed = memory_of(model, settings, Load(tokens, row, packed), machine, where).total
        return machine.memory is None or needed <= ROOM * machine.memory

    low, high = 0, LARGEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def largest_load(plans: Sequence[StepPlan], lengths: Sequence[int]) -> Load:
    """The micro-batch of ``plans`` that computes most tokens; of equal ones the first."""
    found = Load(1, 1, False)
    for plan in plans:
        for micro_batch in plan.micro_batches:
            load = load_of(micro_batch, lengths)
            found = max(found, load, key=lambda one: (one.tokens, one.row))
    return found


def load_of(micro_batch: MicroBatch, lengths: Sequence[int]) -> Load:
    row = max(sum(lengths[index] for index in row) for row in micro_batch.rows)
    return Load(row * len(micro_batch.rows), row, any(len(row) > 1 for row in micro_batch.rows))


def disk_of(model: Architecture, settings: TrainSettings, lengths: Sequence[int], steps: int) -> Disk:
    """With every candidate that ``keep`` leaves, the best one and the one that is being written besides."""
    learned = trained_parameters(model, settings)
    moment = EIGHT_BITS if settings.optimizer == "adamw_8bit" else 4
    beside = frozen_beside(model, settings) if settings.method == "osft" else 0
    adapter = 4 * learned if settings.method in ("lora", "qlora") else 0
    amount = {
        "epochs": settings.epochs,
        "steps": steps,
        "samples": len(lengths) * settings.epochs,
        "tokens": sum(lengths) * settings.epochs,
    }[settings.save_unit]
    count = min(-(-amount // settings.save_every), max(steps, 1))
    if settings.keep is not None:
        count = min(count, settings.keep + 2)
    return Disk(
        state=int((4 + 2 * moment) * learned) + beside,
        candidate=model.stored * model.parameters + adapter,
        candidates=count,
        data=5 * sum(lengths),
    )


def step_flops(model: Architecture, settings: TrainSettings, plan: StepPlan, lengths: Sequence[int]) -> float:
    """Floating-point operations that one step needs: 2 for each weight and token forwards, and those backwards.

    Padding and what checkpointing computes twice are no use and not counted; the output matrix works on trained
    tokens only; attention on half of each sample's square (as in the appendix of arXiv 2204.02311).
    """
    backwards = 2 if settings.method == "full" else 1  # frozen weights need no gradient of their own
    matrices = model.layers * sum(one.size for one in model.matrices)
    dense = 2 * (1 + backwards) * (matrices * plan.tokens + model.embedding * plan.divisor)
    if settings.method != "full":
        dense += 6 * trained_parameters(model, settings) * plan.tokens
    members = [index for one in plan.micro_batches if not one.idle for row in one.rows for index in row]
    attention = 6 * model.layers * model.queries * sum(lengths[index] ** 2 for index in members)
    return float(dense + attention)


def _plans(settings: TrainSettings, lengths: Sequence[int], machine: Machine, where: TrainWhere) -> Iterator[StepPlan]:
    layout: Layout = choose_layout(lengths, machine.kind) if where.layout == "auto" else where.layout
    cap = max(settings.max_batch_tokens, *lengths) if lengths else settings.max_batch_tokens
    shape = Shape(settings.batch, cap, settings.seed, layout, machine.size)
    yield from plan_epoch(lengths, lengths, 0, shape)


def _change(
    config: Mapping[str, Any],
    settings: TrainSettings,
    lengths: Sequence[int],
    machine: Machine,
    where: TrainWhere,
) -> tuple[tuple[str, str], ...]:
    """The fewest settings to change so that it fits: what keeps the result first, then what changes it least."""
    longest = max(lengths, default=1)
    packed = largest_load(list(_plans(settings, lengths, machine, where)), lengths).packed
    for made, place, names in _choices(settings, where):
        found = min(largest_micro_batch(config, made, machine, place, packed=packed), settings.max_batch_tokens)
        if found >= longest:
            cap = () if found >= settings.max_batch_tokens else (("train_max_batch_len", str(found)),)
            return (*names, *cap)
    return ()


def _choices(
    settings: TrainSettings, where: TrainWhere
) -> Iterator[tuple[TrainSettings, TrainWhere, tuple[tuple[str, str], ...]]]:
    """What could be tried, with the settings as one types them, from the mildest to the most drastic."""
    checkpointed = where.model_copy(update={"activation_checkpointing": True})
    again = () if where.activation_checkpointing else (("where.train.activation_checkpointing", "true"),)
    yield settings, where, ()
    yield settings, checkpointed, again
    told: tuple[tuple[str, str], ...] = ()
    made = settings
    steps: list[tuple[str, str, str]] = [("precision", "bf16", "train_precision")]
    if settings.method == "full" and where.world == 1:  # such moments are not shared out
        steps.append(("optimizer", "adamw_8bit", "train_optimizer"))
    for field, value, name in steps:
        if getattr(made, field) != value:
            made = made.model_copy(update={field: value})
            told = (*told, (name, value))
            yield made, checkpointed, (*told, *again)
    bf16 = (("train_precision", "bf16"),) if settings.precision != "bf16" else ()
    smaller = {"full": ("lora", "qlora"), "osft": ("lora", "qlora"), "lora": ("qlora",)}
    for method in smaller.get(settings.method, ()):
        made = settings.model_copy(update={"method": method, "precision": "bf16"})
        yield made, where, (("train_method", method), *bf16)
        yield made, checkpointed, (("train_method", method), *bf16, *again)

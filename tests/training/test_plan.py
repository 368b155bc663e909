"""The planner: every sample once, caps respected, divisors exact, the same steps whatever the layout."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilab.training.plan import Shape, StepPlan, choose_layout, plan_epoch, steps_per_epoch

LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=150)


def members(plan: StepPlan) -> list[int]:
    return [index for micro in plan.micro_batches for row in micro.rows for index in row]


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 17), st.integers(60, 200), st.integers(0, 3), st.sampled_from(["packed", "bucketed"]))
def test_every_sample_once_and_no_micro_batch_over_the_cap(
    lengths: list[int], batch: int, cap: int, epoch: int, layout: str
) -> None:
    trained = [length // 2 for length in lengths]
    plans = plan_epoch(lengths, trained, epoch, Shape(batch, cap, 1, layout))  # type: ignore[arg-type]
    assert sorted(index for plan in plans for index in members(plan)) == list(range(len(lengths)))
    assert len(plans) == steps_per_epoch(len(lengths), batch)
    for plan in plans:
        assert len(members(plan)) <= batch
        assert plan.divisor == sum(trained[index] for index in members(plan))
        assert plan.tokens == sum(lengths[index] for index in members(plan))
        for micro in plan.micro_batches:
            widths = [sum(lengths[index] for index in row) for row in micro.rows]
            assert len(widths) * max(widths) <= cap


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 17))
def test_a_step_holds_the_same_samples_in_both_layouts(lengths: list[int], batch: int) -> None:
    trained = [1] * len(lengths)
    packed = plan_epoch(lengths, trained, 0, Shape(batch, 200, 7, "packed"))
    bucketed = plan_epoch(lengths, trained, 0, Shape(batch, 200, 7, "bucketed"))
    assert [sorted(members(plan)) for plan in packed] == [sorted(members(plan)) for plan in bucketed]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    lengths = [5] * 40

    def order(epoch: int, seed: int) -> list[list[int]]:
        plans = plan_epoch(lengths, lengths, epoch, Shape(4, 100, seed, "bucketed"))
        return [members(plan) for plan in plans]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) != order(0, 2)


def test_a_sample_over_the_cap_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        plan_epoch([10, 300], [1, 1], 0, Shape(2, 100, 0, "packed"))


def test_short_samples_on_a_cpu_go_in_buckets() -> None:
    assert choose_layout([30, 40], "cpu") == "bucketed"
    assert choose_layout([3000, 400], "cpu") == "packed"
    assert choose_layout([30, 40], "cuda") == "packed"

"""Hostile leaves: a hundred thousand of them, and whatever they are, an author gets an answer (see prove_leaf)."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_yaml import BOMBS, files
from hypothesis import HealthCheck, given, seed, settings
from sandbox import Sandbox

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a large input that fails
BATCHES, BATCH = 20, 5_000
MEMORY = 700 * 2**20  # bytes of address space, of which Python and its libraries take some 200 MiB


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox("prove_leaf:prove", tmp_path, memory=MEMORY)


def fuzzed(sandbox: Sandbox, examples: int, start: int) -> Counter[str]:
    """What became of so many random files."""
    outcomes: Counter[str] = Counter()

    @seed(start)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(file=files)
    def prove(file: tuple[bytes, str]) -> None:
        data, name = file
        outcomes[sandbox.run(data, name.encode())] += 1

    with sandbox:
        prove()
    return outcomes


def test_hostile_files(sandbox: Sandbox) -> None:
    outcomes = fuzzed(sandbox, 500, 0)
    assert outcomes["read"] + outcomes["read, mended"] > 25 and outcomes["refused"] > 100, outcomes


@pytest.mark.long
@pytest.mark.parametrize("batch", range(1, BATCHES + 1))
def test_a_hundred_thousand_hostile_files(sandbox: Sandbox, batch: int) -> None:
    assert sum(fuzzed(sandbox, BATCH, batch).values()) >= BATCH


def test_every_bomb_while_it_is_small(sandbox: Sandbox) -> None:
    with sandbox:
        for make in BOMBS.values():
            for size in (0, 40, 2_000):
                sandbox.run(make(size).encode(), b"compositional_skills/a/qna.yaml")


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_of_the_greatest_size(sandbox: Sandbox, name: str) -> None:
    """As much of it as a file may hold (4 MiB), and a little more."""
    make: Callable[[int], str] = BOMBS[name]
    size = 1
    while size < 2**23 and len(make(2 * size)) < 4 * 2**20:
        size *= 2
    with sandbox:
        for count in (size, 2 * size):
            sandbox.run(make(count).encode(), b"compositional_skills/a/qna.yaml")

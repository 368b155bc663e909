from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from ilab.errors import InputError
from ilab.packaging.lineage import lineage


def record(step: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "type": step,
        "version": 1,
        "key": f"key-{step}",
        "digest": f"digest-{step}",
        "fields": {"seed": 7},
        "inputs": inputs,
        "tools": {"ilab": "0.1.0"},
        "counts": {"from_memo": 3},
        "found": {"x": {"locator": "/home/me"}},
        "started": 12.5,
        "seconds": 3.0,
        **more,
    }


RECORDS = [
    record("train", {"dataset": "key-mix"}, tools={"ilab": "0.1.0", "torch": "2.13"}),
    record("mix", {"samples": "key-generate"}),
    record("generate", {"taxonomy": "key-taxonomy", "extra": None}),
    record("taxonomy", {}),
    record("evaluate", {"models": {"base": "key-outside", "tuned": "key-train"}}),
]


def test_steps_come_in_the_order_of_the_work_whatever_order_they_were_given_in() -> None:
    texts = {
        json.dumps(lineage(order, {"revision": "abc"}, {"name": "m", "version": "0.1.0"}))
        for order in itertools.permutations(RECORDS)
    }
    assert len(texts) == 1
    found = json.loads(texts.pop())
    assert [step["step"] for step in found["steps"]] == ["taxonomy", "generate", "mix", "train", "evaluate"]
    assert found["tools"] == {"ilab": "0.1.0", "torch": "2.13"}
    assert found["taxonomy"] == {"revision": "abc"}
    assert found["steps"][3]["inputs"] == {"dataset": "key-mix"}


def test_nothing_of_time_place_or_cache_is_kept() -> None:
    text = json.dumps(lineage(RECORDS, {}, {}))
    assert not any(word in text for word in ("started", "seconds", "/home/me", "from_memo"))


def test_bad_records() -> None:
    with pytest.raises(InputError, match="lacks key"):
        lineage([{k: v for k, v in RECORDS[0].items() if k != "key"}], {}, {})
    with pytest.raises(InputError, match="wait for each other: a, b"):
        lineage([record("a", {"x": "key-b"}), record("b", {"x": {"y": "key-a"}})], {}, {})

"""Choosing a checkpoint and weighting weak leaves."""

import math

import pytest

from ilab.data import Score
from ilab.errors import InputError
from ilab.evaluation.choose import BY_LOSS, BY_SCORE, LAST, UNSELECTED, choose, leaf_weights


def index(*losses: float | None) -> list[dict[str, object]]:
    return [{"name": f"e{n}", "epoch": n, "step": 100 * n, "loss": loss} for n, loss in enumerate(losses, 1)]


def scores(values: list[float | None], leaf: str = "knowledge/a") -> list[Score]:
    return [
        Score(item=f"{leaf}/i{n}", leaf=leaf, model="m", kind="mcq", cluster=f"{leaf}/c{n}", value=value)
        for n, value in enumerate(values)
    ]


def right(count: int, of: int = 20) -> list[Score]:
    return scores([1.0] * count + [0.0] * (of - count))


def test_earliest_within_one_standard_error_of_the_best():
    """The last is best with 16 of 20. One item less: behind .05, paired error sqrt(.05 * .95 / 19) = .05: will do.
    Two items less: behind .10, error sqrt(.1 * .9 / 19) = .0688: will not."""
    result = choose(index(None, None, None), {"e1": right(14), "e2": right(15), "e3": right(16)})
    assert (result["name"], result["rule"]) == ("e2", BY_SCORE)
    assert [row["chosen"] for row in result["table"]] == [False, True, False]
    assert [row["items"] for row in result["table"]] == [20, 20, 20]
    assert [row["behind"] for row in result["table"]] == pytest.approx([0.1, 0.05, 0.0])
    errors = [row["standard_error"] for row in result["table"]]
    assert errors == pytest.approx([math.sqrt(0.09 / 19), math.sqrt(0.0475 / 19), 0.0], abs=1e-6)


def test_items_that_nobody_can_answer_do_not_hide_a_difference():
    """Forty items that are wrong for everybody: the error of a mean would let e1 pass, that of the difference not."""
    hopeless = scores([0.0] * 40, "skill/b")
    result = choose(index(None, None), {"e1": [*right(12), *hopeless], "e2": [*right(19), *hopeless]})
    assert result["name"] == "e2"


def test_ties_go_to_the_earliest():
    assert choose(index(1.0, 1.0), {"e1": right(20), "e2": right(20)})["name"] == "e1"
    assert choose(index(1.0, 1.0, 2.0), {})["name"] == "e1"


def test_without_dev_items_the_lowest_loss_then_the_last():
    assert choose(index(0.9, 0.7, 0.8), {}) | {"table": 0} == {"name": "e2", "rule": BY_LOSS, "table": 0}
    assert choose(index(float("nan"), 0.7, None), {"e1": []})["name"] == "e2"
    last = choose(index(None, float("nan"), float("inf")), {"e1": scores([None])})
    assert (last["name"], last["rule"]) == ("e3", UNSELECTED)
    assert [row["loss"] for row in last["table"]] == [None, None, None]


def test_unscored_items_are_compared_on_what_all_have():
    """e1 has no score on the four items that e2 got wrong; on the shared ones both are perfect."""
    first = scores([1.0] * 16 + [None, None, float("nan"), None])
    result = choose(index(None, None), {"e1": first, "e2": right(16)})
    assert result["name"] == "e1" and [row["items"] for row in result["table"]] == [16, 16]


def test_a_checkpoint_that_was_not_measured_cannot_win():
    result = choose(index(0.1, 0.9, 0.9), {"e1": scores([None] * 20), "e2": right(3), "e3": right(18)})
    assert result["name"] == "e3" and result["table"][0]["score"] is None


def test_what_is_asked_for_chooses():
    losses, measured = index(0.5, 0.1, 0.3), {"e1": right(19), "e2": right(3), "e3": right(10)}
    assert [choose(losses, measured, by)["name"] for by in ("auto", "score", "loss", "last")] == [
        "e1",
        "e1",
        "e2",
        "e3",
    ]
    assert choose(losses, measured, "last")["rule"] == LAST
    assert choose(losses, measured, "loss")["rule"] == BY_LOSS


def test_equal_losses_go_to_the_earliest_and_no_number_never_wins():
    assert choose(index(float("nan"), 0.2, 0.2, float("-inf")), {}, "loss")["name"] == "e2"


def test_nothing_to_choose_by_as_asked_for_is_an_error_unless_there_is_no_choice():
    with pytest.raises(InputError, match="no checkpoint has a score") as caught:
        choose(index(0.1, 0.2), {"e1": scores([None, float("nan")])}, "score")
    assert "train_select=loss" in caught.value.hint
    with pytest.raises(InputError, match="no loss on held-out rows") as caught:
        choose(index(None, float("nan")), {"e1": right(3)}, "loss")
    assert "train_validation_share" in caught.value.hint
    for by in ("score", "loss"):
        only = choose(index(None), {}, by)
        assert (only["name"], only["rule"]) == ("e1", UNSELECTED)


def test_a_judge_s_marks_choose_like_any_score():
    """Marks between 0 and 1; the judge could not read one answer of e2, which then is compared by nobody."""
    marks = {"e1": [0.4, 0.5, 0.6, 0.5, 1.0], "e2": [0.8, 0.9, 0.9, 0.9, float("nan")], "e3": [0.8, 0.9, 0.9, 0.9, 0.0]}
    result = choose(index(None, None, None), {name: scores(values) for name, values in marks.items()})
    assert (result["name"], result["rule"]) == ("e2", BY_SCORE)
    assert [row["score"] for row in result["table"]] == [0.5, 0.875, 0.875]
    assert [row["items"] for row in result["table"]] == [4, 4, 4]


def test_the_order_in_which_scores_come_changes_nothing():
    measured = {"e2": right(15)[::-1], "e3": right(16)[::-1], "e1": right(14)[::-1]}
    assert choose(index(None, None, None), measured) == choose(
        index(None, None, None), {name: right(count) for name, count in (("e1", 14), ("e2", 15), ("e3", 16))}
    )


def test_no_checkpoint_is_an_error():
    with pytest.raises(InputError, match="no checkpoint"):
        choose([], {})


def test_weights_of_weak_leaves():
    measured = [
        *scores([1.0, 1.0, 0.0], "a"),
        *scores([0.0, 0.0], "b"),
        *scores([1.0], "c"),
        *scores([None, float("nan")], "d"),
    ]
    assert leaf_weights(measured, ["e"]) == {"a": 1.33, "b": 2.0, "c": 1.0, "d": 1.0, "e": 1.0}
    assert leaf_weights(measured, floor=0.5)["b"] == 1.5


def judged(marks: list[float | None], leaf: str) -> list[Score]:
    """Free answers whose value is the judge's mark; ``None``: it said nothing that can be read."""
    return [
        one.model_copy(
            update={"kind": "free", "metrics": {} if one.value is None else {"judge": one.value}, "note": "unreadable"}
        )
        for one in scores(marks, leaf)
    ]


def test_a_judge_s_marks_decide_against_the_other_items():
    """By likelihood e1 is ahead by one item of ten; the judge finds the written answers of e2 far better."""
    choices = {"e1": right(6, 10), "e2": right(5, 10)}
    assert choose(index(None, None), choices)["name"] == "e1"
    marks = {"e1": [0.1, 0.2, 0.1, 0.2] * 5, "e2": [0.9, 0.8, 0.9, 1.0] * 5}
    with_judge = {name: [*choices[name], *judged(marks[name], "skill/f")] for name in choices}
    assert choose(index(None, None), with_judge)["name"] == "e2"
    swapped = {"e1": with_judge["e1"], "e2": [*choices["e2"], *judged(marks["e1"], "skill/f")]}
    assert choose(index(None, None), swapped)["name"] == "e1"


def test_equal_marks_go_to_the_earliest_in_any_order():
    marks = judged([0.25, 0.5, 0.75, 1.0] * 3, "skill/f")
    for order in (("e1", "e2", "e3"), ("e3", "e1", "e2")):
        found = choose(index(None, None, None), {name: marks[::-1] if name == "e2" else marks for name in order})
        assert found["name"] == "e1" and [row["behind"] for row in found["table"]] == [0.0, 0.0, 0.0]


def test_a_checkpoint_that_the_judge_broke_off_on_does_not_decide_on_which_items_others_are_compared():
    """e1 has a mark on one item of twenty: there it is as good as any; the others differ clearly on all twenty."""
    first = judged([1.0] + [None] * 19, "skill/f")
    weak, strong = judged([1.0] + [0.2] * 19, "skill/f"), judged([1.0] + [0.9] * 19, "skill/f")
    result = choose(index(None, None, None), {"e1": first, "e2": weak, "e3": strong})
    assert result["name"] == "e3" and [row["items"] for row in result["table"]] == [0, 20, 20]
    assert result["table"][0]["score"] is None


def test_marks_on_different_items_cannot_be_compared_and_the_loss_decides():
    first = judged([0.9] * 10 + [None] * 10, "skill/f")
    second = judged([None] * 10 + [0.1] * 10, "skill/f")
    assert choose(index(0.9, 0.4), {"e1": first, "e2": second}) | {"table": 0} == {
        "name": "e2",
        "rule": BY_LOSS,
        "table": 0,
    }


def test_a_leaf_that_the_judge_marks_low_gets_more_rows():
    weights = leaf_weights(
        [
            *judged([0.1, 0.2, 0.3], "skill/weak"),
            *judged([0.9, 0.8, 1.0], "skill/strong"),
            *judged([None, 0.4, float("nan")], "skill/unreadable"),
            *judged([None], "skill/none"),
            *scores([1.0, 1.0], "knowledge/a"),
        ]
    )
    assert weights == {
        "knowledge/a": 1.0,
        "skill/none": 1.0,
        "skill/strong": 1.1,
        "skill/unreadable": 1.6,
        "skill/weak": 1.8,
    }
    assert leaf_weights(judged([0.1, 0.2, 0.3], "a")[::-1]) == leaf_weights(judged([0.3, 0.1, 0.2], "a")) == {"a": 1.8}

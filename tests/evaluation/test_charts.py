"""Charts: well-formed SVG whose geometry follows the numbers."""

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from ilab.evaluation.charts import POINTS, Curve, Dot, bar, curves, dots, nice_ticks


def centres(svg: str) -> list[float]:
    return [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]


def test_dots_stand_where_their_values_are():
    svg = dots([Dot("base", 0.0, 0.0, 0.2), Dot("mid", 0.5), Dot("tuned", 1.0, 0.8, 1.0)], [Dot("open book", 0.9)])
    ElementTree.fromstring(svg)
    left, right = centres(svg)
    assert (left, right) == (10.0, 250.0)
    assert "base 0 % (0 to 20), mid 50 %, tuned 100 % (80 to 100), open book 90 %" in svg


def test_missing_values_draw_nothing():
    svg = dots([Dot("base", None), Dot("tuned", 0.4)])
    ElementTree.fromstring(svg)
    assert len(centres(svg)) == 1 and "whisker" not in svg
    assert "no scores" in dots([Dot("base", None)])


def test_labels_are_escaped():
    svg = dots([Dot("<b>&\"'", 0.5)], [Dot("</svg>", 0.2)]) + bar(0.5, "<i>")
    assert "<b>" not in svg and "</svg></title>" not in svg and "<i>" not in svg


def test_curves_are_thinned_and_skip_what_is_not_finite():
    points = [(float(n), 5.0 / n) for n in range(1, 5000)] + [(5000.0, float("nan")), (5001.0, float("inf"))]
    svg = curves([Curve("loss", points, marked=2500.0)], title="Training loss", unit="steps")
    ElementTree.fromstring(svg)
    path = re.search(r'class="line l0" d="([^"]+)"', svg)
    assert path and path[1].count("L") < POINTS and "nan" not in svg and "inf" not in svg
    assert 'class="chosen"' in svg and "Training loss: loss from" in svg
    assert curves([Curve("loss", [(1.0, float("nan"))])], title="t", unit="u") == ""
    ElementTree.fromstring(curves([Curve("flat", [(1.0, 0.0)])], title="t", unit="u"))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_even_and_cover_the_range(low: float, span: float):
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = nice_ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-9) + 1e-6 * (high - low)
    assert 2 <= len(ticks) <= 7 and ticks == sorted(ticks)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack

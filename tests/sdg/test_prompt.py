"""Templates see their row and nothing else."""

from __future__ import annotations

import pytest

from ilab.errors import InputError
from ilab.sdg.prompt import render, variables

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ row.__init__.__globals__ }}",
    "{{ row['__class__'] }}{{ row.__class__.__name__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{{ self._TemplateReference__context }}",
    "{{ '{0.__class__.__mro__}'.format(row) }}",
    "{{ (row|attr('__class__')).__mro__ }}",
    "{{ row.append(1) }}",
    "{{ row.clear() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% for a in range(100000000) %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
    "{{ 1 / 0 }}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_no_way_out_of_the_sandbox(template: str) -> None:
    row: list[str] = ["value"]
    with pytest.raises(InputError) as caught:
        render(template, {"row": row}, "write")
    assert caught.value.where == "write"
    assert row == ["value"]


def test_a_template_renders_and_is_stripped() -> None:
    assert render("\n {% for e in es[:2] %}{{ e.q | upper }} {% endfor %}\n", {"es": [{"q": "a"}] * 3}, "w") == "A A"


def test_missing_variables_are_errors_and_known_beforehand() -> None:
    template = "{% for e in examples %}{{ e.q }}{{ loop.index }}{% endfor %}{{ document }}"
    assert variables(template, "w") == {"examples", "document"}
    with pytest.raises(InputError, match="document"):
        render(template, {"examples": []}, "w")


def test_bad_syntax_is_told_with_its_line() -> None:
    with pytest.raises(InputError) as caught:
        variables("fine\n{% for %}", "prompt.txt")
    assert caught.value.where == "prompt.txt:2"

"""Cron expressions, against the rules of crontab(5)."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from ilab.core.cron import read_cron
from ilab.errors import InputError

MONDAY = datetime(2026, 3, 2, 10, 30, tzinfo=ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 2 * * *", "2026-03-03T02:00"),
        ("30 10 * * *", "2026-03-03T10:30"),  # not now: after
        ("31 10 * * *", "2026-03-02T10:31"),
        ("*/20 * * * *", "2026-03-02T10:40"),
        ("5/25 9-11 * * *", "2026-03-02T10:55"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 3 * * sun", "2026-03-08T03:00"),
        ("0 3 * * 7", "2026-03-08T03:00"),
        ("0 3 13 * fri", "2026-03-06T03:00"),  # both days given: either
        ("0 3 */2 * fri", "2026-03-13T03:00"),  # one begins with a star: both
        ("15,45 4 1 JAN,jul *", "2026-07-01T04:15"),
        ("@weekly", "2026-03-08T00:00"),
    ],
)
def test_the_next_time(text: str, expected: str) -> None:
    found = read_cron(text).next(MONDAY)
    assert found is not None and found.strftime("%Y-%m-%dT%H:%M") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 2 * *", "five fields, not 4"),
        ("60 2 * * *", "'60' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 2 0 * *", "'0' is no day of the month"),
        ("0 2 * 13 *", "'13' is no month"),
        ("0 2 * * mondays", "'mondays' is no day of the week"),
        ("5-1 2 * * *", "'5-1' is no minute"),
        ("*/0 2 * * *", "'*/0' is no minute"),
        ("*-5 2 * * *", "'*-5' is no minute"),
        ("0 2 31 2 *", "never comes"),
        ("@reboot", "five fields, not 1"),
        ("$(id) 2 * * *", "is no minute"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_cron(text)
    assert message in caught.value.message and "minute, hour" in caught.value.hint

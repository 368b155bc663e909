"""When something happens again: cron expressions, as Kubernetes reads them (crontab(5), five fields).

    ┌ minute 0-59   ┌ hour 0-23   ┌ day of the month 1-31   ┌ month 1-12 or jan-dec   ┌ day of the week 0-6 or sun-sat
    0               2             *                         *                         1-5

A field is ``*``, a number, a range, a list of them, each with a step (``*/15``); 7 is Sunday too. Where both days are
given, either will do, as cron has done since Version 7. ``@hourly`` and its like stand for five fields.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from ilab.errors import InputError

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
HINT = 'five fields: minute, hour, day of the month, month, day of the week; "0 2 * * *" is every night at two'
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_PART = re.compile(r"(?P<first>\*|[0-9]+|[a-z]{3})(?:-(?P<last>[0-9]+|[a-z]{3}))?(?:/(?P<step>[0-9]+))?")
_YEARS = 8  # a 29 February comes at least so often


@dataclass(frozen=True)
class Cron:
    """The values of each field, and the five fields as text."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either: bool  # whether a day of the month or of the week is enough

    def on(self, day: datetime) -> bool:
        """Whether it happens on this day."""
        if day.month not in self.months:
            return False
        month, week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return month or week if self.either else month and week

    def next(self, after: datetime) -> datetime | None:
        """The first time after ``after``; None where there is none within eight years, as on 31 February."""
        for count in range(366 * _YEARS):
            day = (after + timedelta(days=count)).replace(hour=0, minute=0, second=0, microsecond=0)
            if not self.on(day):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    found = day.replace(hour=hour, minute=minute)
                    if found > after:
                        return found
        return None


def read_cron(text: str) -> Cron:
    """Raises ``InputError`` that names the wrong field, also for days that never come."""
    plain = " ".join(text.lower().split())
    fields = MACROS.get(plain, plain).split(" ")
    if len(fields) != 5:
        raise InputError(f"a cron expression has five fields, not {len(fields)}: {text!r}", where="--cron", hint=HINT)
    minute, hour, day, month, weekday = fields
    cron = Cron(
        " ".join(fields),
        _values(minute, "minute", 0, 59, {}),
        _values(hour, "hour", 0, 23, {}),
        _values(day, "day of the month", 1, 31, {}),
        _values(month, "month", 1, 12, _MONTHS),
        frozenset(value % 7 for value in _values(weekday, "day of the week", 0, 7, _DAYS)),
        not day.startswith("*") and not weekday.startswith("*"),
    )
    if cron.next(datetime(2024, 1, 1)) is None:
        raise InputError(f"this day never comes: {text!r}", where="--cron", hint=HINT)
    return cron


def _values(text: str, what: str, least: int, most: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None or (match["first"] == "*" and match["last"]):
            raise _wrong(part, what, least, most)
        if match["first"] == "*":
            first, last = least, most
        else:
            first = _number(match["first"], what, least, most, names)
            open_end = most if match["step"] else first  # "5/10" begins at 5
            last = _number(match["last"], what, least, most, names) if match["last"] else open_end
        step = int(match["step"] or 1)
        if last < first or step < 1:
            raise _wrong(part, what, least, most)
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, what: str, least: int, most: int, names: dict[str, int]) -> int:
    number = names.get(text, int(text) if text.isdecimal() else -1)
    if not least <= number <= most:
        raise _wrong(text, what, least, most)
    return number


def _wrong(text: str, what: str, least: int, most: int) -> InputError:
    return InputError(f"{text!r} is no {what} ({least}-{most})", where="--cron", hint=HINT)

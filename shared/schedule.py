"""Schedules as the Functions host reads them: NCRONTAB with six fields, in UTC (pure).

The host's timers use the .NET library NCrontab (atifaziz/NCrontab: CrontabField, CrontabSchedule). A field is a list of
values, ranges and steps; a month or weekday may be named by the beginning of its English name; weekdays are 0 (Sunday)
to 6, and 7 is none; `5/10` means from 5 to the end; a day must fit both its day of the month *and* its weekday, where
crontab is content with one. That library also turns a range that runs backwards around (`FRI-SUN` would be Sunday to
Friday), takes a step of 0 for 1, and takes `M` for a day: those are refused here, for nobody means them.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product

_MONTHS = "january february march april may june july august september october november december"
_DAYS = "sunday monday tuesday wednesday thursday friday saturday"
_FEWEST_LETTERS = 3
_MOST_DIGITS = 9
# The Gregorian calendar repeats itself, weekdays included, after 400 years; every possible date with a given weekday
# comes within 40 (29 February on one weekday, over a century that is no leap year).
_YEARS = 40


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, tuple(_MONTHS.split())),
    _Field("weekday", 0, 6, tuple(_DAYS.split())),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The values of each field, in order. Weekdays count from Sunday (0)."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]


def parse(text: str) -> Schedule:
    """An NCRONTAB expression of six fields. Raises ValueError naming the wrong field, or where it never comes."""
    words = text.split()
    if len(words) != len(_FIELDS):
        raise ValueError(
            f"has {len(words)} fields, and six are needed: second minute hour day month weekday,"
            " such as 0 0 2 * * * (daily at 02:00 UTC)"
        )
    schedule = Schedule(*(_values(word, field) for word, field in zip(words, _FIELDS, strict=True)))
    if min(schedule.days) > max(monthrange(2024, month)[1] for month in schedule.months):
        raise ValueError(f"never comes: no month of {words[4]} has a day {min(schedule.days)}")
    return schedule


def next_after(schedule: str, moment: datetime) -> datetime:
    """The first time of a schedule after `moment` (timezone-aware), in UTC. Raises ValueError as `parse` does."""
    wanted = parse(schedule)
    start = moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    earliest = (start.hour, start.minute, start.second)
    for number in range(366 * _YEARS):
        day = start.date() + timedelta(days=number)
        if day.day in wanted.days and day.month in wanted.months and day.isoweekday() % 7 in wanted.weekdays:
            time = _first_time(wanted, earliest if number == 0 else (0, 0, 0))
            if time is not None:
                return datetime(day.year, day.month, day.day, *time, tzinfo=UTC)
    raise ValueError(f"{schedule!r} has no time in the {_YEARS} years after {moment:%Y-%m-%d}")


def _first_time(schedule: Schedule, earliest: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """The first time of a day at which the schedule comes, not before `earliest`."""
    times = product(schedule.hours, schedule.minutes, schedule.seconds)
    return next((time for time in times if time >= earliest), None)


def _values(word: str, field: _Field) -> tuple[int, ...]:
    found: set[int] = set()
    for part in word.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isascii() and step.isdigit() and int(step[:9]) > 0):
            raise _wrong(word, field, f"{step[:40]!r} is no step; a step is a whole number from 1")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = field.low, field.high
        elif dash:
            low, high = _value(first, word, field), _value(last, word, field)
            if low > high:
                raise _wrong(word, field, f"the range {span[:40]!r} runs backwards; name its values by comma")
        else:
            low = _value(span, word, field)
            high = field.high if slash else low
        found.update(range(low, high + 1, int(step[:9]) if slash else 1))
    return tuple(sorted(found))


def _value(text: str, word: str, field: _Field) -> int:
    if text.isascii() and text.isdigit():
        if len(text) > _MOST_DIGITS:
            raise _wrong(word, field, f"{text[:40]} has more than {_MOST_DIGITS} digits")
        if not field.low <= int(text) <= field.high:
            raise _wrong(word, field, f"{text} is not from {field.low} to {field.high}")
        return int(text)
    if len(text) >= _FEWEST_LETTERS:
        for index, name in enumerate(field.names):
            if name.startswith(text.lower()):
                return field.low + index
    names = f" or a name such as {field.names[0][:3].upper()}" if field.names else ""
    raise _wrong(word, field, f"{text[:40]!r} is no number from {field.low} to {field.high}{names}")


def _wrong(word: str, field: _Field, why: str) -> ValueError:
    return ValueError(f"has a wrong {field.name} {word[:40]!r}: {why}")

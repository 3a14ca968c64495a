"""Findings for programs and spreadsheets: JSON and CSV."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import AsyncIterable, Generator, Iterable
from contextlib import suppress
from dataclasses import fields
from typing import IO, Any

from pydantic import TypeAdapter

from shared.models import Finding, Status
from shared.plain import plain_fields
from shared.report.changes import Changes, what_changed
from shared.report.order import sorted_by_place

_FINDING = TypeAdapter(Finding)


def as_json(findings: Iterable[Finding], out: IO[str], changes: Changes | None = None) -> None:
    """Findings as a JSON array; each with its node's `changes` where these are given."""
    _write(sorted_by_place(findings), json_entries(out, changes))


def as_csv(findings: Iterable[Finding], out: IO[str]) -> None:
    """Findings as CSV with a header line. A cell that a spreadsheet would take for a formula gets a leading quote."""
    _write(sorted_by_place(findings), csv_entries(out))


Entries = Generator[None, Finding | None, None]
"""Takes findings one by one, as they come; the end is told with None."""


def _write(findings: Iterable[Finding], entries: Entries) -> None:
    next(entries)
    for finding in findings:
        entries.send(finding)
    with suppress(StopIteration):
        entries.send(None)


async def stream(findings: AsyncIterable[Finding], entries: Entries) -> set[Status]:
    """Write findings as they come, holding none; gives their statuses."""
    statuses: set[Status] = set()
    next(entries)
    async for finding in findings:
        statuses.add(finding.status)
        entries.send(plain_fields(finding))
    with suppress(StopIteration):
        entries.send(None)
    return statuses


def json_entries(out: IO[str], changes: Changes | None = None) -> Entries:
    """A JSON array."""
    before = "[\n"
    while (finding := (yield)) is not None:
        value = _FINDING.dump_python(finding, mode="json")
        if changes is not None:
            value["changes"] = [
                {"at": change.seen.isoformat(), "status": change.status, "what": what_changed(change)}
                for change in changes.get(finding.key, ())
            ]
        text = json.dumps(value, indent=2)
        out.write(before + textwrap.indent(text, "  "))
        before = ",\n"
    out.write("[]\n" if before == "[\n" else "\n]\n")


def csv_entries(out: IO[str]) -> Entries:
    """CSV."""
    names = [field.name for field in fields(Finding)]
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    while (finding := (yield)) is not None:
        row = _FINDING.dump_python(finding, mode="json")
        writer.writerow({name: _cell(row[name]) for name in names})


# What makes a formula of a cell, in full width too, which spreadsheets of some languages take as well.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith(_FORMULA):
        return "'" + value
    return json.dumps(value) if isinstance(value, bool | list) else value

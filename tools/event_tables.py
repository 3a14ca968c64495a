"""The tables of events that queries are written over, made of the classes of `shared.telemetry`.

`python -m tools.event_tables` writes two files: `infra/queries/parts/events.kql`, a `let` line a table, which is put
before each query; and `scripts/kusto/events.json`, the tables' columns with their types and, of a closed set, its
words, by which Kusto's parser reads the queries. A test holds both against the classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from shared import telemetry

REPOSITORY = Path(__file__).resolve().parents[1]
TABLES = REPOSITORY / "infra" / "queries" / "parts" / "events.kql"
SCHEMA = REPOSITORY / "scripts" / "kusto" / "events.json"

_KUSTO = {str: "string", bool: "bool", int: "long", float: "real", datetime: "datetime"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: Kusto's name of its type, and the words that it may have (none: any)."""

    name: str
    type: str
    words: tuple[str, ...] = ()


def events() -> tuple[type[telemetry.Event], ...]:
    """The classes of events."""
    return get_args(telemetry.Event)


def table_of(event: type[telemetry.Event]) -> str:
    """The name of the table of an event's lines."""
    return f"{event.__name__}s"


def columns(event: type[telemetry.Event]) -> list[Column]:
    """The columns of an event's table, but for `timestamp`. Raises TypeError for a type that Kusto has no column of."""
    hints = get_type_hints(event)
    return [_column(field.name, hints[field.name]) for field in fields(event)]


def _column(name: str, hint: Any) -> Column:
    # None becomes the empty string; of other types Kusto has a null.
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if isinstance(hint, UnionType) else [hint]
    kind = kinds[0] if len(kinds) == 1 else None
    if kind in _KUSTO:
        return Column(name, _KUSTO[kind])
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return Column(name, "string", tuple(kind))
    raise TypeError(f"{name}: there is no column for {hint}")


def as_tables() -> str:
    """One `let` a line. It has no double quotes and backslashes, so that it fits into a text of JSON as it is, and no
    braces, in which a workbook has its parameters."""
    return "".join(_let(event) for event in events())


def _let(event: type[telemetry.Event]) -> str:
    read = "".join(f", {column.name} = to{column.type}(e.{column.name})" for column in columns(event))
    return (
        f"let {table_of(event)} = traces | where message has 'event' and message has '{telemetry.name_of(event)}'"
        f" | extend e = parse_json(message) | where tostring(e.event) == '{telemetry.name_of(event)}'"
        f" | project timestamp{read};\n"
    )


def as_schema() -> str:
    """The tables' columns as JSON: table → column → type and words."""
    tables: dict[str, Any] = {}
    for event in events():
        tables[table_of(event)] = {"timestamp": {"type": "datetime"}}
        for column in columns(event):
            words = {"words": list(column.words)} if column.words else {}
            tables[table_of(event)][column.name] = {"type": column.type, **words}
    return json.dumps(tables, indent=2) + "\n"


def main() -> None:
    """Write both files."""
    TABLES.write_text(as_tables())
    SCHEMA.write_text(as_schema())


if __name__ == "__main__":
    main()

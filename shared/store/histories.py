"""What is known of controls on nodes, as rows: one for what is so now, and one for each change (pure).

Keys sort by scale set and instance number, so that a batch's nodes stand together: `now.SCALESET.INSTANCE.CONTROL`,
and `was.SCALESET.INSTANCE.CONTROL.TIME` for a change. Of single VMs the resource group stands for the scale set and the
name for the instance; each is read by itself, for between two of them stand all that were there once. The partition is
the node's subscription, so both are written together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from shared.errors import UsageError
from shared.models import History
from shared.store.backend import Row
from shared.store.codec import decode, encode
from shared.store.keys import digest

_NODE_KEY = re.compile(r"(/subscriptions/([^/]+)/.+)/virtualmachines/([^/]+)")
_NOW, _WAS = "now", "was"
# Two nodes of a scale set whose numbers are further apart are not read in one range: too many others may lie between.
_GAP = 100


def rows(entry: History) -> tuple[str, dict[str, Row]]:
    """The partition and the rows that an entry makes.

    Raises UsageError where `node_key` is not an Azure resource id.
    """
    subscription, scale_set, instance = _place(entry.node_key)
    row = Row(encode(entry), {"day": day(entry.seen)})
    made = {f"{_NOW}.{scale_set}.{instance}.{entry.control}": row}
    if _is_change(entry):
        made[f"{_WAS}.{scale_set}.{instance}.{entry.control}.{entry.seen.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"] = row
    return subscription, made


def ranges(node_keys: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """By partition, the ranges of keys in which what is known of these nodes stands (and perhaps of others)."""
    sets: dict[tuple[str, str], set[str]] = {}
    for node_key in node_keys:
        subscription, scale_set, instance = _place(node_key)
        sets.setdefault((subscription, scale_set), set()).add(instance)
    found: dict[str, list[tuple[str, str]]] = {}
    for (subscription, scale_set), instances in sets.items():
        start, end = "", ""
        for instance in sorted(instances):
            if not end or not _near(end, instance):
                found.setdefault(subscription, []).append((start, end))
                start = instance
            end = instance
            found[subscription][-1] = (f"{_NOW}.{scale_set}.{start}.", f"{_NOW}.{scale_set}.{end}.")
    return found


def changes(node_key: str) -> tuple[str, tuple[str, str]]:
    """The partition and the range of keys in which a node's changes stand."""
    subscription, scale_set, instance = _place(node_key)
    prefix = f"{_WAS}.{scale_set}.{instance}."
    return subscription, (prefix, prefix)


def day(time: datetime) -> str:
    """A time as the field `day` has it: `YYYYMMDD`, in UTC."""
    return f"{time.astimezone(UTC):%Y%m%d}"


def read(data: str, row: str) -> History:
    """An entry from a row's data. Raises StoreError where it is none."""
    return decode(History, data, f"the history {row}")


def _is_change(entry: History) -> bool:
    return entry.seen in (entry.since, entry.last_fixed, entry.last_rolled_back)


def _near(one: str, two: str) -> bool:
    return one.isdigit() and two.isdigit() and int(two) - int(one) <= _GAP


def _place(node_key: str) -> tuple[str, str, str]:
    """The subscription, a stand-in for the scale set, and the instance: a number in ten digits, so that it sorts."""
    match = _NODE_KEY.fullmatch(node_key)
    if match is None:
        raise UsageError(f"{node_key[:100]!r} is not a node's key (/subscriptions/SUBSCRIPTION/…/virtualmachines/ID)")
    scale_set, subscription, instance = match.groups()
    number = instance.isascii() and instance.isdigit()
    return subscription, digest(scale_set), instance.zfill(10) if number else instance

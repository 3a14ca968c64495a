"""The measured cases: a real kubelet, its command line and files in, what it made of them out.

`cases.jsonl` are 600 cases of 1.36; `minors.jsonl.gz` are the cases of seven minors, a line a case, with what each
minor's kubelet did. In all of them the node has the certificates below.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.kubelet import Resolution, resolve
from tests.support.configs import CERTIFICATES

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("cases.jsonl").read_text("utf-8").splitlines()
]
MINORS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")


def minor_cases(minor: str) -> list[dict[str, Any]]:
    """The cases that were measured on a minor."""
    lines = gzip.decompress(Path(__file__).with_name("minors.jsonl.gz").read_bytes()).decode("utf-8").splitlines()
    return [case for case in map(json.loads, lines) if minor in case["measured"]]


def resolved(case: Mapping[str, Any], version: str | None = None) -> Resolution:
    files = case["files"]
    return resolve(
        case["argv"], files, version=version, exists=lambda path: path in files or path.startswith(CERTIFICATES)
    )


def agrees(found: Resolution, measured: Mapping[str, Any]) -> bool:
    if found.accepted != measured["accepted"]:
        return False
    return not found.accepted or all(found.value(path) == value for path, value in measured["effective"].items())


def test_all_600_cases_of_1_36_agree() -> None:
    assert len(CASES) == 600
    assert [case["id"] for case in CASES if not agrees(resolved(case, "1.36.3"), case)] == []


@pytest.mark.parametrize("minor", MINORS)
def test_the_cases_of_a_minor_agree(minor: str) -> None:
    rows = minor_cases(minor)
    assert len(rows) >= 290
    different = [
        case["id"]
        for case in rows
        if not agrees(resolved(case, case["measured"][minor]["version"]), case["measured"][minor])
    ]
    assert different == []


# Measured on a kubelet that took an unknown gate; 1.36.3 refuses it first, as it is said here.
_OTHER_WORDS = ["k00037", "k00223", "k00230"]


def test_refusals_are_worded_as_the_kubelet_words_them() -> None:
    """But for the file's text, which the kubelet quotes whole, and the config it prints at the end."""

    def plain(error: str) -> str:
        return re.sub(r"is missing in '.*", "is missing", error.replace('\\"', '"').partition(", path: &")[0])

    different = [
        case["id"]
        for case in CASES
        if not case["accepted"] and plain(str(resolved(case).error)) != plain(case["error"])
    ]
    assert different == _OTHER_WORDS

"""The measured cases: a real kubelet 1.36, its command line and files in, what it made of them out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared.kubelet import resolve

CASES: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("cases.jsonl").read_text("utf-8").splitlines()
]


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    found = resolve(case["argv"], case["files"])
    effective = (
        {path: found.value(path) for path in case["effective"]} if found.accepted and case["effective"] else None
    )
    return {"accepted": found.accepted, "effective": effective}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_measured_case(case: dict[str, Any]) -> None:
    assert outcome(case) == {"accepted": case["accepted"], "effective": case["effective"]}


def test_all_600_cases_are_here_and_agree() -> None:
    agree = sum(outcome(case) == {"accepted": case["accepted"], "effective": case["effective"]} for case in CASES)
    assert (agree, len(CASES)) == (600, 600)


def test_refusals_are_worded_as_the_kubelet_words_them() -> None:
    """But for the file's text, which the kubelet quotes whole, and the config it prints at the end."""

    def plain(error: str) -> str:
        return re.sub(r"is missing in '.*", "is missing", error.replace('\\"', '"').partition(", path: &")[0])

    different = [
        case["id"]
        for case in CASES
        if not case["accepted"] and plain(str(resolve(case["argv"], case["files"]).error)) != plain(case["error"])
    ]
    assert different == []

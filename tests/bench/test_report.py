"""What is kept of the bench's results, and what its plot shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import report
from bench.__main__ import cases
from bench.measure import Result

US = Result(
    who="us",
    nodes=1000,
    subscriptions=1,
    scale=5.0,
    extrapolated=False,
    bound=80,
    last_start=85,
    end=120,
    slowest=30,
    calls=3000,
    calls_by_kind={},
    refused=0,
    busy=0,
    starts=1000,
    looks={"2": 1000},
    seconds_unseen=0,
    cpu=7,
    server_cpu=7,
    peak_mb=160,
    real_seconds=30,
    statuses={"pass": 1000},
    wrong=0,
    curve=(0.0, 85.0),
    dead_every=200,
    measured="2026-01-31",
)


def test_a_newer_result_takes_the_place_of_one_whose_row_looks_the_same(tmp_path: Path) -> None:
    path = tmp_path / "after.json"
    report.keep(path, US)
    report.keep(path, replace(US, scale=1.0))
    report.keep(path, replace(US, dead_every=0, measured="2026-02-01"))
    assert [(item.scale, item.measured) for item in report.load(path)] == [(1.0, "2026-01-31"), (5.0, "2026-02-01")]


@pytest.mark.parametrize("peers_in", ["before", "after"])
def test_the_plot_shows_the_peers_wherever_they_were_measured(
    peers_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.keep(tmp_path / "before.json", US)
    report.keep(tmp_path / "after.json", US)
    report.keep(tmp_path / f"{peers_in}.json", replace(US, who="all at once"))
    assert "all at once" in report._plot()


def test_what_starts_all_at_once_is_measured_in_real_time() -> None:
    several = [case for case in cases(5.0) if case.subscriptions > 1]
    assert [(case.subscriptions, case.scale, case.dead_every) for case in several] == [(4, 1.0, 0), (20, 1.0, 0)]
    assert {case.scale for case in cases(5.0) if case.subscriptions == 1} == {5.0}

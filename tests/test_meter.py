"""How far a run is, told on stderr."""

from __future__ import annotations

from shared.meter import Meter
from tests.support.records import finding


def test_nodes_of_one_name_in_different_places_are_different_nodes() -> None:
    meter = Meter()
    meter.on_findings([finding(cluster="one"), finding(cluster="two"), finding(cluster="two", control="4.1.1")])
    meter.on_findings([finding(cluster="three", node="", instance_id="", scale_set="")])
    assert (meter.done, sum(meter.statuses.values())) == (2, 4)

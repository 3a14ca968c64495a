"""How far a run is, told on stderr."""

from __future__ import annotations

from shared.meter import Meter
from shared.models import Status
from tests.support.records import finding


def test_nodes_of_one_name_in_different_places_are_different_nodes() -> None:
    meter = Meter()
    meter.on_findings([finding(cluster="one"), finding(cluster="two"), finding(cluster="two", control="4.1.1")])
    meter.on_findings([finding(cluster="three", node="", instance_id="", scale_set="")])
    assert (meter.done, sum(meter.statuses.values())) == (2, 3)


def test_a_node_counts_once_by_the_worst_that_a_control_found() -> None:
    meter = Meter()
    meter.on_findings(
        [
            *(finding(node="a", instance_id="1", control=control) for control in ("3.2.1", "3.2.6")),
            finding(node="b", instance_id="2", control="3.2.1", status=Status.ERROR),
            finding(node="b", instance_id="2", control="3.2.6", status=Status.FAIL),
            finding(node="c", instance_id="3", control="3.2.1", status=Status.NOT_APPLICABLE),
            finding(node="c", instance_id="3", control="3.2.6", status=Status.PASS),
        ]
    )
    assert (meter.done, meter.statuses) == (3, {Status.FAIL: 1, Status.PASS: 2})
    assert meter.words() == "1 fail, 2 pass"

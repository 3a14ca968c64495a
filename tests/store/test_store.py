"""The store's contract, over both backends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import StoreError, UsageError
from shared.models import Finding, Outcome, Run, RunKind, RunState, RunSummary, Status
from shared.runs.model.findings import key_of
from shared.store import Counts, FindingQuery, Hold, Store, Work, histories, new_run_id, open_store
from shared.store.backend import Backend, Row, Table, Where
from shared.store.codec import encode
from shared.store.keys import digest, finding_row, prefix_end
from tests.support.records import NOON, RUN, SUBSCRIPTION, finding, history, machine_id, node, run

OTHER_SUBSCRIPTION = "99999999-2222-3333-4444-555555555555"


async def test_findings_survive_closing(location: str) -> None:
    saved = [
        finding(0, actual=("a", "b"), expected=None, outcome=Outcome.FIXED, last_right=NOON, reimaged_since=False),
        finding(1, status=Status.ERROR, actual=None, reason="it's \x00 odd — 漢😀\nand long " + "x" * 40_000),
    ]
    async with open_store(location) as store:
        await store.save_findings(saved)
    async with open_store(location) as store:
        page = await store.findings(FindingQuery(run_id=RUN))
    assert sorted(page.findings, key=lambda each: each.instance_id) == saved
    assert page.continuation is None


async def test_the_same_finding_twice_is_one_row_and_the_later_one_counts(store: Store) -> None:
    await store.save_findings([finding(0), finding(0, status=Status.FAIL, cluster="PROD")])
    assert [each.status for each in await _all(store, FindingQuery(run_id=RUN))] == [Status.FAIL]
    await store.save_findings([finding(0, status=Status.PASS)])
    assert [each.status for each in await _all(store, FindingQuery(run_id=RUN))] == [Status.PASS]


async def test_findings_come_by_place(store: Store) -> None:
    """In the order in which they are shown, so that nobody has to hold them to sort them."""
    places = [("b", "np1", "0"), ("a", "np2", "10"), ("a", "np2", "9"), ("a", "np1", "3"), ("a", "(virtual nodes)", "")]
    made = [finding(number, cluster=c, node_pool=p, instance_id=i) for number, (c, p, i) in enumerate(places)]
    await store.save_findings(made)
    got = [(f.cluster, f.node_pool, f.instance_id) async for f in store.all_findings(FindingQuery(run_id=RUN))]
    assert got == [
        ("a", "(virtual nodes)", ""),
        ("a", "np1", "3"),
        ("a", "np2", "9"),
        ("a", "np2", "10"),
        ("b", "np1", "0"),
    ]


async def test_two_thousand_findings_are_paged_without_loss(store: Store) -> None:
    saved = {each.key: each for each in (finding(n) for n in range(2000))}
    await store.save_findings(list(saved.values()))
    found: list[Finding] = []
    continuation, pages = None, 0
    while pages == 0 or continuation:
        page = await store.findings(FindingQuery(run_id=RUN), limit=300, continuation=continuation)
        found += page.findings
        pages, continuation = pages + 1, page.continuation
    assert pages == 7
    assert len(found) == 2000
    assert {each.key: each for each in found} == saved
    assert await _all(store, FindingQuery(run_id=RUN)) == found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (FindingQuery(), 5),
        (FindingQuery(run_id=RUN), 4),
        (FindingQuery(run_id="20000101T000000Z-000000"), 0),
        (FindingQuery(run_id=RUN, status=Status.FAIL), 1),
        (FindingQuery(status=Status.FAIL), 2),
        (FindingQuery(run_id=RUN, control="3.2.6"), 3),
        (FindingQuery(subscription=OTHER_SUBSCRIPTION.upper()), 1),
        (FindingQuery(run_id=RUN, cluster="pROD"), 3),
        (FindingQuery(run_id=RUN, cluster="o'dev\" or 1 eq 1"), 1),
        (FindingQuery(run_id=RUN, node_pool="USER"), 1),
        (FindingQuery(run_id=RUN, node="AKS-system-12345678-vmss000001"), 1),
        (FindingQuery(run_id=RUN, cluster="prod", node_pool="user", status=Status.PASS), 1),
        (FindingQuery(run_id=RUN, cluster="prod", node_pool="user", status=Status.FAIL), 0),
    ],
)
async def test_a_query_gives_what_it_says(store: Store, query: FindingQuery, expected: int) -> None:
    await store.save_findings(
        [
            finding(0, node_pool="user"),
            finding(1, status=Status.FAIL),
            finding(2, control="3.2.7"),
            finding(3, cluster="o'dev\" or 1 eq 1", subscription=OTHER_SUBSCRIPTION),
            finding(1, status=Status.FAIL, run_id="20260130T120000Z-a1b2c3"),
        ]
    )
    assert len((await store.findings(query)).findings) == expected
    assert len(await _all(store, query)) == expected


async def test_runs_come_newest_first_and_by_kind_and_state(store: Store) -> None:
    runs = [
        run(new_run_id(NOON + timedelta(hours=hour)), kind=kind, state=state)
        for hour, (kind, state) in enumerate(
            [
                (RunKind.AUDIT, RunState.COMPLETED),
                (RunKind.FIX, RunState.FAILED),
                (RunKind.AUDIT, RunState.COMPLETED),
                (RunKind.AUDIT, RunState.RUNNING),
            ]
        )
    ]
    for each in (runs[2], runs[0], runs[3], runs[1]):
        await store.save_run(each)
    first = await store.runs(3)
    assert first.runs == (runs[3], runs[2], runs[1])
    second = await store.runs(3, first.continuation)
    assert second.runs == (runs[0],)
    assert second.continuation is None
    assert (await store.runs(kind=RunKind.AUDIT, state=RunState.COMPLETED)).runs == (runs[2], runs[0])
    assert await store.latest_run() == runs[3]
    assert await store.latest_run(RunKind.AUDIT, RunState.COMPLETED) == runs[2]
    assert await store.latest_run(RunKind.PLAN) is None


async def test_a_run_is_found_by_its_id_and_replaced_by_its_end(store: Store) -> None:
    assert await store.run(RUN) is None
    await store.save_run(run(request={"subscriptions": [SUBSCRIPTION], "mode": "audit"}))
    ended = run(
        state=RunState.COMPLETED,
        finished=NOON + timedelta(minutes=3),
        summary=RunSummary({Status.PASS: 2, Status.ERROR: 1}, {}, 3, 12, 0.5),
    )
    await store.save_run(ended)
    assert await store.run(RUN) == ended
    assert (await store.runs()).runs == (ended,)
    with pytest.raises(UsageError, match="is not a run id"):
        await store.run("latest")


async def test_of_many_that_change_a_run_at_once_none_undoes_another(store: Store) -> None:
    await store.save_run(run())

    async def changed() -> Run | None:
        return await store.change_run(RUN, lambda known: replace(known, epoch=known.epoch + 1))

    made = await asyncio.gather(*(changed() for _ in range(8)))
    assert sorted(each.epoch for each in made if each is not None) == [*range(1, 9)]
    assert await store.run(RUN) == run(epoch=8)
    failed = (await store.runs(state=RunState.FAILED)).runs
    assert await store.change_run(RUN, lambda known: replace(known, state=RunState.FAILED)) is not None
    assert (failed, len((await store.runs(state=RunState.FAILED)).runs)) == ((), 1)


async def test_a_run_that_is_to_stay_as_it_is_is_not_written(store: Store) -> None:
    assert await store.add_run(run())
    assert not await store.add_run(run(epoch=3))
    assert await store.change_run(RUN, lambda _: None) is None
    assert await store.run(RUN) == run()
    with pytest.raises(LookupError, match="has no run"):
        await store.change_run(new_run_id(NOON), lambda known: known)


async def test_findings_of_machines_come_by_group_scale_set_and_number(store: Store) -> None:
    ids = [
        machine_id("10"),
        machine_id("9"),
        machine_id("aks-b-1", ""),
        machine_id("aks-a-1", ""),
        machine_id("0", group="MC_A"),
        machine_id("0", "aks-apps-12345678-vmss"),
    ]
    await store.save_findings([finding(0, resource_id=each) for each in ids])
    got = [item.resource_id async for item in store.all_findings(FindingQuery(run_id=RUN))]
    assert got == [ids[4], ids[3], ids[2], ids[5], ids[1], ids[0]]


async def test_a_machine_is_one_however_its_id_is_spelt_and_two_where_it_is_another(store: Store) -> None:
    """Single VMs of two clusters may have one name, scale set (none) and pool: the id tells them apart."""
    one = finding(0, scale_set="", instance_id="vm", node="vm", resource_id=machine_id("vm", ""))
    other = replace(one, resource_id=machine_id("vm", "", "MC_Other"))
    await store.save_findings([one, other, replace(one, resource_id=one.resource_id.upper(), cluster="Renamed")])
    assert (await store.count(RUN)).nodes == 2
    recorded = await store.recorded(RUN, [one.key, other.key])
    assert [recorded[one.key].cluster, recorded[other.key].cluster] == ["Renamed", "Prod"]
    assert key_of(node(0, id=one.resource_id), one.control) == one.key


async def test_findings_of_earlier_versions_have_no_resource_id_and_stay(store: Store, backend: Backend) -> None:
    old = json.loads(encode(finding(7)))
    del old["resource_id"]
    # The row that earlier versions gave it: this value may never change.
    row = (
        f"{SUBSCRIPTION}.prod.system.aks-system-12345678-vmss.0000000007"
        f".{digest(f'{SUBSCRIPTION}|prod-rg|prod|system|aks-system-12345678-vmss|7|3.2.6')}"
    )
    assert finding_row(finding(7).key) == row
    await backend.put(Table.FINDINGS, RUN, {row: Row(json.dumps(old), {"status": "pass", "outcome": "", "place": "x"})})
    (found,) = [item async for item in store.all_findings(FindingQuery(run_id=RUN))]
    assert (found, found.resource_id) == (finding(7), "")
    assert await store.recorded(RUN, [finding(7).key]) == {finding(7).key: finding(7)}


async def test_history_of_single_vms(store: Store) -> None:
    vms = [node(0, id=machine_id(name, "")) for name in ("aks-a", "aks-a.b-x1", "aks-a.b-x2", "0007")]
    there = [history(0, node_key=each.key) for each in vms[:3]]
    await store.save_history(there)
    assert await store.history(vms) == {(entry.node_key, "3.2.6"): entry for entry in there}
    assert await store.changes(vms[0].key) == (there[0],)
    assert await store.changes(vms[3].key) == ()


async def test_history_is_kept_by_node_and_control(store: Store) -> None:
    elsewhere = node(0, subscription=OTHER_SUBSCRIPTION)
    saved = [
        history(0),
        history(0, control="3.2.60"),
        history(1, status=Status.FAIL, last_right=None),
        history(11),
        history(0, node_key=elsewhere.key),
    ]
    await store.save_history(saved)
    found = await store.history([node(0), node(1), node(2), elsewhere, node(0)])
    assert found == {
        (node(0).key, "3.2.6"): saved[0],
        (node(0).key, "3.2.60"): saved[1],
        (node(1).key, "3.2.6"): saved[2],
        (elsewhere.key, "3.2.6"): saved[4],
    }
    assert await store.history([]) == {}
    await store.save_history([history(0, status=Status.FAIL)])
    assert (await store.history([node(0)]))[node(0).key, "3.2.6"].status is Status.FAIL
    with pytest.raises(UsageError, match="is not a node's key"):
        await store.save_history([history(0, node_key="node-1")])


async def test_history_of_many_nodes(store: Store) -> None:
    there = [*range(0, 300, 2), 12_345]
    await store.save_history([history(n) for n in there])
    found = await store.history([*(node(n) for n in range(300)), node(12_345), node(99_999)])
    assert found == {(node(n).key, "3.2.6"): history(n) for n in there}


async def test_each_change_is_kept_beside_what_is_so_now(store: Store) -> None:
    later, latest = NOON + timedelta(days=1), NOON + timedelta(days=2)
    entries = [
        history(0),
        history(0, status=Status.FAIL, seen=later, since=later),
        history(0, status=Status.FAIL, seen=latest, since=later, proof="another process"),
        history(0, seen=latest + timedelta(hours=1), last_fixed=latest + timedelta(hours=1)),
    ]
    for entry in entries:
        await store.save_history([entry, history(10)])
        await store.save_history([entry])  # once more is nothing more
    assert await store.history([node(0)]) == {(node(0).key, "3.2.6"): entries[3]}
    assert await store.changes(node(0).key) == (entries[0], entries[1], entries[3])
    assert await store.changes(node(1).key) == ()


@given(st.sets(st.integers(0, 3000) | st.sampled_from(["vm-a", "vm-a.b", "vm_1", "0007"]), max_size=60))
def test_the_ranges_of_nodes_have_them_and_few_others(instances: set[int | str]) -> None:
    keys = {node(instance_id=str(each)).key for each in instances}
    rows = {key: min(histories.rows(history(node_key=key))[1]) for key in keys}
    found = histories.ranges(keys).get(SUBSCRIPTION, [])
    for row in rows.values():
        assert sum(first <= row < prefix_end(last) for first, last in found) >= 1
    assert len(found) <= len(keys)
    for first, last in found:
        ends = [text.split(".")[2] for text in (first, last)]
        inside = [key for key, row in rows.items() if first <= row < prefix_end(last)]
        if all(end.isdigit() for end in ends):
            assert int(ends[1]) - int(ends[0]) <= 100 * max(1, len(inside) - 1)


async def test_a_run_is_counted_by_status_outcome_and_node(store: Store) -> None:
    assert await store.count(RUN) == Counts({}, {}, 0)
    await store.save_findings(
        [
            *(finding(n, status=Status.FAIL if n % 3 else Status.PASS) for n in range(1500)),
            *(finding(n, control="3.2.7", outcome=Outcome.FIXED) for n in range(5)),
            *(finding(n, control="3.2.9", outcome=Outcome.NOT_TRIED) for n in range(5)),
            finding(0, control="3.2.8", outcome=Outcome.ROLLED_BACK, status=Status.ERROR, cluster="PROD"),
            finding(0, cluster="another", outcome=None),
            finding(0, status=Status.ERROR, scale_set="", instance_id="", node=""),
            finding(0, run_id="20260130T120000Z-a1b2c3"),
        ]
    )
    assert await store.count(RUN) == Counts(
        {Status.PASS: 511, Status.FAIL: 1000, Status.ERROR: 2}, {Outcome.FIXED: 4, Outcome.ROLLED_BACK: 1}, 1501
    )


async def test_the_latest_audit_is_of_everything_where_there_is_one(store: Store) -> None:
    assert await store.latest_audit() is None
    everything: dict[str, object] = {"subscriptions": [], "clusters": [], "node_pools": [], "controls": []}
    ids = iter(new_run_id(NOON + timedelta(minutes=n)) for n in range(1000))

    async def saved(**changes: Any) -> Run:
        made = run(next(ids), **{"state": RunState.COMPLETED, "request": everything, **changes})
        await store.save_run(made)
        return made

    part = await saved(request={**everything, "clusters": ["prod"]})
    await saved(state=RunState.FAILED)
    await saved(kind=RunKind.FIX)
    assert await store.latest_audit() == part
    whole = await saved()
    for name in ("subscriptions", "clusters", "node_pools", "controls"):
        await saved(request={**everything, name: ["x"]})
    await saved(state=RunState.RUNNING)
    assert await store.latest_audit() == whole
    for _ in range(120):
        await saved(request={"subscriptions": [SUBSCRIPTION]})
    assert await store.latest_audit() == whole
    newer = await saved(request={})
    assert await store.latest_audit() == newer


async def test_the_hold_is_on_until_it_is_released(store: Store) -> None:
    assert await store.hold() is None
    await store.release_hold()
    for reason in ("a bad rule", "still"):
        await store.set_hold(Hold("somebody", NOON, reason))
        assert await store.hold() == Hold("somebody", NOON, reason)
    assert await store.claim("hold", "a run", 60)
    await store.release_hold()
    assert await store.hold() is None


async def test_work_is_compared_and_swapped(store: Store) -> None:
    assert await store.work(RUN, "lane/a") is None
    first = await store.put_work(RUN, "lane/a", "one", None)
    assert first is not None
    assert await store.put_work(RUN, "lane/a", "another", None) is None
    second = await store.put_work(RUN, "lane/a", "two", first)
    assert second is not None
    assert await store.put_work(RUN, "lane/a", "three", first) is None
    assert await store.work(RUN, "lane/a") == Work("lane/a", "two", second)
    assert await store.put_work(RUN, "gone", "x", second) is None
    assert await store.put_work("20260130T120000Z-a1b2c3", "lane/a", "its own", None)


async def test_one_of_many_writers_of_work_wins(store: Store) -> None:
    won = await asyncio.gather(*(store.put_work(RUN, "b", f"{n}", None) for n in range(8)))
    (etag,) = [each for each in won if each is not None]
    assert await store.work(RUN, "b") == Work("b", str(won.index(etag)), etag)
    again = await asyncio.gather(*(store.put_work(RUN, "b", "the same", etag) for n in range(8)))
    assert sum(each is not None for each in again) == 1


async def test_works_come_by_prefix_in_order_whatever_their_number_and_size(store: Store) -> None:
    texts = {f"batch/{n:05d}": json.dumps({"n": n, "x": "y" * (390_000 if n < 3 else 10)}) for n in range(35)}
    for name, text in reversed(texts.items()):
        assert await store.put_work(RUN, name, text, None)
    await store.put_work(RUN, "batch", "", None)
    await store.put_work(RUN, "lane/1", "", None)
    assert {each.name: each.text async for each in store.works(RUN, "batch/")} == texts
    assert [each.name async for each in store.works(RUN, "batch/")] == list(texts)
    assert [each.name async for each in store.works(RUN)][-1] == "lane/1"
    assert [each async for each in store.works("20260130T120000Z-a1b2c3", "batch/")] == []


def test_work_does_not_show_its_text() -> None:
    assert "secret" not in repr(Work("batch", "https://x/?sig=secret", "e"))


@pytest.mark.parametrize(
    "text", ["", "short", "line\r\n\ttab 漢😀\n" * 50_000, '{"a": "\\u0001"}' * 200_000, "é" * 700_000]
)
async def test_a_document_comes_back_to_the_byte(store: Store, text: str) -> None:
    await store.save_document(RUN, "plans/the plan?.json", text)
    assert await store.document(RUN, "plans/the plan?.json") == text
    assert await store.document(RUN, "plans/the plan?") is None
    assert await store.document("20260130T120000Z-a1b2c3", "plans/the plan?.json") is None


async def test_a_document_is_replaced_whole_and_leaves_nothing_behind(store: Store, backend: Backend) -> None:
    await store.save_document(RUN, "plan", "a" * 1_000_000)
    await store.save_document(RUN, "plan", "a" * 1_000_000)
    await store.save_document(RUN, "plan.json", "another")
    await store.save_document(RUN, "plan", "b" * 400_000)
    assert await store.document(RUN, "plan") == "b" * 400_000
    assert await store.document(RUN, "plan.json") == "another"
    rows = (await backend.query(Table.DOCUMENTS, Where(RUN), 100)).rows
    assert len(rows) == (1 + 3) + (1 + 1)


async def test_half_a_document_is_never_read(store: Store, backend: Backend) -> None:
    """Cut while it is written, the document before it stays; with parts lost, it is an error."""
    await store.save_document(RUN, "plan", "a" * 400_000)
    rows = (await backend.query(Table.DOCUMENTS, Where(RUN), 100)).rows
    parts = [stored for stored in rows if not stored.row.endswith(".head")]
    unfinished = f"{digest('plan')}.{'0' * 64}.000000"
    await backend.put(Table.DOCUMENTS, RUN, {unfinished: Row("half of a new one")})
    assert await store.document(RUN, "plan") == "a" * 400_000
    await backend.delete(Table.DOCUMENTS, RUN, [parts[1].row])
    with pytest.raises(StoreError, match=r"the document 'plan' of run .* has lost parts"):
        await store.document(RUN, "plan")
    await store.save_document(RUN, "plan", "a" * 400_000)
    assert await store.document(RUN, "plan") == "a" * 400_000


async def test_a_document_that_is_not_text_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="the document 'plan' is not valid Unicode at character 2"):
        await store.save_document(RUN, "plan", "ab\ud800")


async def test_a_claim_is_held_renewed_and_released_by_its_owner(store: Store) -> None:
    assert await store.holder("scope/a") is None
    assert await store.claim("scope/a", "run 1", 60)
    assert await store.holder("scope/a") == "run 1"
    assert not await store.claim("scope/a", "run 2", 60)
    assert await store.claim("scope/b", "run 2", 60)
    assert await store.claim("scope/a", "run 1", 60)
    await store.release("scope/a", "run 2")
    assert await store.holder("scope/a") == "run 1"
    await store.release("scope/a", "run 1")
    await store.release("scope/a", "run 1")
    assert await store.holder("scope/a") is None
    assert await store.claim("scope/a", "run 2", 60)


async def test_an_owner_that_claims_twice_at_once_holds_it_and_a_renewal_is_two_calls(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert all(await asyncio.gather(*(store.claim("scope", "run 1", 60) for _ in range(4))))
    made: list[str] = []

    def counted(name: str) -> Callable[..., Awaitable[object]]:
        call = getattr(store.backend, name)

        async def counting(*given: object) -> object:
            made.append(name)
            return await call(*given)

        return counting

    for name in ("insert", "replace", "get"):
        monkeypatch.setattr(store.backend, name, counted(name))
    assert await store.claim("scope", "run 1", 60)
    assert made == ["get", "replace"]


async def test_an_expired_claim_is_taken_over_by_one(store: Store) -> None:
    assert await store.claim("scope", "run 1", 0)
    assert await store.holder("scope") is None
    won = await asyncio.gather(*(store.claim("scope", f"run {n}", 60) for n in range(2, 10)))
    assert won.count(True) == 1
    assert await store.holder("scope") == f"run {won.index(True) + 2}"
    assert not await store.claim("scope", "run 1", 60)
    await store.release("scope", "run 1")
    assert await store.holder("scope") == f"run {won.index(True) + 2}"


async def test_a_row_that_cannot_be_read_is_named(store: Store, backend: Backend) -> None:
    await store.save_findings([finding(0)])
    await backend.put(Table.FINDINGS, RUN, {digest("broken"): Row('{"run_id": "x"}')})
    with pytest.raises(StoreError, match=f"the finding {digest('broken')} of run {RUN} in the store is not a Finding"):
        await store.findings(FindingQuery(run_id=RUN))


async def test_saving_nothing_is_nothing(store: Store) -> None:
    await store.save_findings([])
    await store.save_history([])
    assert await _all(store, FindingQuery()) == []


async def test_findings_of_two_nodes_that_differ_in_one_part_are_two(store: Store) -> None:
    one = finding(0)
    await store.save_findings([one, replace(one, scale_set="other"), replace(one, control="3.2.7")])
    assert len(await _all(store, FindingQuery(run_id=RUN))) == 3


async def _all(store: Store, query: FindingQuery) -> list[Finding]:
    return [each async for each in store.all_findings(query)]

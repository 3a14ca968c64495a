"""Plans as values: what is shown of them is what they do, and what is not whole is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.models import File, History, Outcome, Status
from shared.node.fixing import HEALTHZ, HEALTHZ_OFF, CannotApply, file_edit
from shared.plain import plain
from shared.runs.model import history, names
from shared.runs.model.plans import NodePlan, SeenFile, digest, fault, held_back, plan_node, same, spliced
from tests.support.evidence import CONFIG, config, evidence
from tests.support.findings import NOW, finding, node

PATH = "/etc/default/kubelet"
LINES = st.lists(
    st.sampled_from([b"a", b"b=1", b"--c=false", b"\xe9", b"\xff\xfe", "ä\u2028".encode(), b""]), max_size=9
)
TEXTS = st.builds(lambda lines, end: b"\n".join(lines) + end, LINES, st.sampled_from([b"", b"\n", b"\r\n"]))


def plan_of(old: bytes, new: bytes, *, masked: bool = False) -> NodePlan:
    """A plan that makes one text of another; Hypothesis is told where there is none."""
    real = sha256(b"the real text" if masked else old).hexdigest()
    seen = File(PATH, old.decode("utf-8", "surrogateescape"), 0o600, 0, 0, len(old), 0, real, True)
    try:
        edit = file_edit(seen, new.decode("utf-8", "surrogateescape"))
    except CannotApply:
        assume(False)
    return NodePlan(node=node(1), controls=("3.2.6",), edits=(edit,), files=(SeenFile(PATH, old, real),))


@given(TEXTS, TEXTS, st.booleans())
def test_what_is_shown_is_what_is_done(old: bytes, new: bytes, masked: bool) -> None:
    plan = plan_of(old, new, masked=masked)
    assert spliced(old, plan.edits[0].splices) == new
    stored = NodePlan.model_validate_json(plan.model_dump_json())
    assert stored == plan
    assert digest([stored]) == digest([plan])
    shown = [line[1:] for line in plan.diff.split("\n") if line[:1] == "+" and not line.startswith("+++ ")]
    gone = [line[1:] for line in plan.diff.split("\n") if line[:1] == "-" and not line.startswith("--- ")]
    assert shown or gone
    assert "\udcff" not in plan.diff
    assert "\udce9" not in plan.diff
    for side, text in ((shown, new), (gone, old)):
        lines = [plain(line, None) for line in text.decode("utf-8", "surrogateescape").split("\n")]
        assert set(side) <= set(lines)


def test_a_line_of_a_file_is_one_line_of_the_diff() -> None:
    """Else a node's file could show a change that is none, or colour the terminal of whoever asks the app."""
    plan = plan_of(b"a\x0b+b: 1\r-c\xe2\x80\xa8+d\x1b[31m\nfalse\n", b"a\x0b+b: 1\r-c\xe2\x80\xa8+d\x1b[31m\ntrue\n")
    assert plan.diff.splitlines()[3:] == [r" a\x0b+b: 1\x0d-c\u2028+d\x1b[31m", "-false", "+true"]


@given(TEXTS, TEXTS, st.data())
def test_an_edit_that_does_not_fit_is_refused(old: bytes, new: bytes, data: st.DataObject) -> None:
    plan = plan_of(old, new)
    (edit,), (seen,) = plan.edits, plan.files
    splice = edit.splices[0]
    wrong: dict[str, object] = data.draw(
        st.sampled_from(
            [
                {"edits": (replace(edit, path="/etc/shadow"),)},
                {"edits": (replace(edit, splices=(replace(splice, new=splice.new + b"x"), *edit.splices[1:])),)},
                {"edits": (replace(edit, splices=(replace(splice, start=len(old) + 1), *edit.splices[1:])),)},
                {"edits": (replace(edit, splices=(replace(splice, length=splice.length + 1), *edit.splices[1:])),)},
                {"edits": (replace(edit, splices=(replace(splice, start=-1), *edit.splices[1:])),)},
                {"edits": (replace(edit, splices=(*edit.splices, splice)),)},
                {"edits": (replace(edit, new_digest=None),)},
                {"files": (replace(seen, text=old + b"x"),)},
                {"files": (replace(seen, digest="0" * 64),)},
                {"files": ()},
                {"controls": ("0.0.0",)},
            ]
        )
    )
    assert fault(plan) == ""
    assert fault(plan.model_copy(update=wrong)) != ""
    if "controls" in wrong:  # the catalogue may have changed since it was stored
        assert NodePlan.model_validate({**dict(plan), **wrong}).controls == ("0.0.0",)
        return
    with pytest.raises(ValidationError):
        NodePlan.model_validate({**dict(plan), **wrong})


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({}, HEALTHZ),
        ({"healthzPort": 10333}, "127.0.0.1:10333"),
        ({"healthzPort": 10333, "healthzBindAddress": "0.0.0.0"}, "127.0.0.1:10333"),
        ({"healthzBindAddress": "10.1.2.3"}, "10.1.2.3:10248"),
        ({"healthzBindAddress": "fd00::1"}, "[fd00::1]:10248"),
        ({"healthzPort": 0}, HEALTHZ_OFF),
    ],
)
def test_a_plan_knows_where_the_kubelet_says_that_it_is_well(settings: dict[str, object], where: str) -> None:
    seen = evidence(config_text=config(makeIPTablesUtilChains=False, **settings))
    plan = plan_node(node(1), ("3.2.6",), seen, "auto")
    assert (plan.refused, plan.healthz) == ("", where)
    assert plan.diff.splitlines()[:2] == [f"--- {CONFIG}", f"+++ {CONFIG}"]


def test_a_roll_back_is_remembered_until_the_node_is_right() -> None:
    place = node(1)
    plan = plan_of(b"a\n", b"b\n").model_copy(update={"node": replace(place, created=NOW - timedelta(days=1))})

    def known(entry: History) -> history.Past:
        return {(entry.node_key, entry.control): entry}

    for status in (Status.FAIL, Status.ERROR):
        after = history.after(finding(status, outcome=Outcome.ROLLED_BACK), place.key, None)
        assert after is not None
        assert after.last_rolled_back == NOW
        # None: it is remembered already.
        still = history.after(finding(Status.FAIL, observed=NOW + timedelta(days=1)), place.key, after) or after
        assert still.last_rolled_back == NOW
        held = held_back(plan, known(still), retry=False)
        assert "was rolled back, on 2026-11-01 00:00 UTC" in held.refused
        assert held.edits == ()
        assert held_back(plan, known(still), retry=True) == plan
        assert held_back(plan, known(replace(still, node_key="/another")), retry=False) == plan
        fresh = plan.model_copy(update={"node": replace(place, created=NOW + timedelta(hours=1))})
        assert held_back(fresh, known(still), retry=False) == fresh, "another machine"
        right = history.after(finding(Status.PASS), place.key, still)
        assert right is not None
        assert held_back(plan, known(right), retry=False) == plan


def test_the_same_plan_is_the_same_deed() -> None:
    plan = plan_of(b"a\n", b"b\n")
    assert same(plan, plan.model_copy(update={"steps": ("other words",), "running_pid": 7}))
    assert same(plan, plan.model_copy(update={"node": replace(plan.node, power="updating")}))
    for other in (
        plan_of(b"a\n", b"c\n"),
        plan.model_copy(update={"node": node(2)}),
        plan.model_copy(update={"node": replace(plan.node, node_image_version="image-2")}),
        plan.model_copy(update={"present": ("--x",)}),
        plan.model_copy(update={"healthz": HEALTHZ_OFF}),
        NodePlan(node=plan.node, controls=plan.controls, refused="no"),
    ):
        assert not same(plan, other)


def test_what_there_is_begins_with_what_looks_like_it() -> None:
    known = [f"aks-{number:02}" for number in range(30)]
    assert names.unknown(["AKS-01", "x"], known) == ["x"]
    assert names.there_is(["ask-17"], known).startswith("there is: aks-17, ")
    assert names.there_is(["ask-17"], known).endswith(" and 20 more")
    assert names.there_is(["x"], ["", "\x1b[2Jb"]) == "there is: \\x1b[2Jb"
    assert names.there_is(["x"], []) == "there is: none"

"""Plans: the smallest edits, proved by resolving again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.controls import control, judge
from shared.kubelet import config_paths, resolve
from shared.kubelet.edit import EditError, add_setting, replace_value
from shared.models import Condition, Evidence, Status
from shared.node.edits import CannotPlan, Method, Plan, plan
from shared.runs.model.plans import plan_node
from shared.systemd import start_command
from tests.support.evidence import (
    AKS_UNIT,
    CONFIG,
    CONFIG_DIR,
    DROPIN_FLAGS,
    ENVIRONMENT,
    UNIT,
    config,
    edited,
    evidence,
    file,
    of_process,
    process,
    quoted,
)
from tests.support.findings import node

CONTROL = control("3.2.6")
FALSE = "--make-iptables-util-chains=false"
TRUE = "--make-iptables-util-chains=true"
CLIENT_CA = "/etc/kubernetes/certs/ca.crt"  # there in every measured case
CASES = Path(__file__).parent.parent / "kubelet" / "cases.jsonl"


def planned(seen: Evidence, method: Method = "auto") -> Plan:
    """The plan for one control, or why there is none, raised."""
    made = plan([CONTROL], seen, None, method)
    if made.refused:
        raise CannotPlan(made.refused[CONTROL.id])
    return made


def after(seen: Evidence, made: Plan) -> Evidence:
    """The node after the plan was applied and the kubelet restarted."""
    files = {**seen.files, **{path: file(path, text) for path, text in made.texts.items()}}
    texts = {path: item.text for path, item in files.items()}
    argv = [argument.text for argument in start_command(seen.units[0], seen.units[1:], texts).argv]
    return process(replace(seen, files=files), argv=tuple(argv))


def failing_cases() -> list[dict[str, Any]]:
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    return [case for case in cases if case["accepted"] and not case["effective"]["makeIPTablesUtilChains"]]


@pytest.mark.parametrize("method", ["auto", "config", "flags"])
def test_every_measured_failing_case_can_be_fixed(method: Method) -> None:
    """Applying a plan and resolving again gives the compliant value, and nothing else changes."""
    cases = failing_cases()
    assert len(cases) > 90
    refused = 0
    for case in cases:
        argv = ["/opt/bin/kubelet", *case["argv"][1:]]
        unit = "[Service]\nExecStart=" + " ".join(map(quoted, argv)) + "\n"
        seen = replace(evidence(unit=unit, files=case["files"], argv=argv), exists={CLIENT_CA: True})
        written = resolve(argv, case["files"]).assignments("makeIPTablesUtilChains")
        in_file = config_paths(argv).config or any(item.source.kind == "file" for item in written)
        if method == "config" and not in_file:
            with pytest.raises(CannotPlan, match="reads no config file"):
                planned(seen, method)
            refused += 1
            continue
        made = planned(seen, method)
        then = after(seen, made)
        resolution = resolve(of_process(then).argv, then.texts)
        assert resolution.accepted, case["id"]
        assert resolution.value("makeIPTablesUtilChains") is True, case["id"]
        others = {path: value for path, value in case["effective"].items() if path != "makeIPTablesUtilChains"}
        assert {path: resolution.value(path) for path in others} == others, case["id"]
        assert judge(CONTROL, then).status is Status.PASS, case["id"]
        assert not planned(then, method).texts, f"{case['id']}: planning twice must change nothing"
        if method == "flags":
            assert resolution.source("makeIPTablesUtilChains").kind == "flag"
        if method == "config":
            kinds = {item.source.kind for item in resolution.assignments("makeIPTablesUtilChains")}
            assert "file" in kinds
    assert refused < len(cases) / 4


def test_a_wrong_file_value_is_all_that_changes() -> None:
    text = config(makeIPTablesUtilChains=False, maxPods=110)
    made = planned(evidence(config_text=text))
    assert made.texts == {CONFIG: text.replace("false", "true")}
    assert made.steps == (f"set makeIPTablesUtilChains to true in {CONFIG}, line 4",)
    assert (made.present, made.absent) == ((), ())


def test_both_are_corrected_where_both_are_wrong() -> None:
    seen = evidence(f"--v=2 {FALSE} --max-pods=30", config(makeIPTablesUtilChains=False))
    made = planned(seen)
    assert set(made.texts) == {CONFIG, ENVIRONMENT}
    assert made.texts[ENVIRONMENT] == f"KUBELET_FLAGS=--v=2 {TRUE} --max-pods=30\n"
    assert (made.present, made.absent) == ((TRUE,), (FALSE,))


def test_a_flag_given_twice_is_corrected_twice() -> None:
    made = planned(evidence(f"{FALSE} --make_iptables_util_chains=0"))
    assert made.texts[ENVIRONMENT] == f"KUBELET_FLAGS={TRUE} --make_iptables_util_chains=true\n"


def test_a_flag_in_the_unit_or_a_dropin() -> None:
    made = planned(evidence(unit=AKS_UNIT.replace("--enable-server", f'"{FALSE}" \\\n  --enable-server')))
    assert made.texts == {UNIT: AKS_UNIT.replace("--enable-server", f'"{TRUE}" \\\n  --enable-server')}


def test_yaml_keeps_comments_and_line_ends() -> None:
    text = (
        "# ours\r\nkind: KubeletConfiguration\r\napiVersion: kubelet.config.k8s.io/v1beta1\r\n"
        "makeIPTablesUtilChains: no   # why?\r\n"
    )
    made = planned(evidence(config_text=text))
    assert made.texts == {CONFIG: text.replace("no   #", "true   #")}


def test_only_a_restart_is_missing() -> None:
    seen = edited(evidence(FALSE), ENVIRONMENT, f"KUBELET_FLAGS={TRUE}\n")
    made = planned(seen)
    assert (made.texts, made.present, made.absent) == ({}, (TRUE,), (FALSE,))


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("config", CONFIG, config(makeIPTablesUtilChains=True)),
        ("flags", ENVIRONMENT, f"KUBELET_FLAGS=--v=2 {TRUE}\n"),
    ],
)
def test_a_method_writes_the_setting_explicitly(method: Method, path: str, text: str) -> None:
    assert planned(evidence(), method).texts == {path: text}
    assert planned(evidence()).texts == {}


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (evidence("--no-such-flag"), "would refuse to start"),
        (evidence(unit=AKS_UNIT.replace("--enable-server", "--x=%b"), argv=["/opt/bin/kubelet"]), "is not known: "),
        (replace(evidence(FALSE), units=()), "names no unit file"),
        (replace(evidence(FALSE), files={}), "was not collected"),
    ],
)
def test_what_cannot_be_planned_says_so(seen: Evidence, says: str) -> None:
    with pytest.raises(CannotPlan, match=says):
        planned(seen)


def test_an_image_managed_unit_is_not_edited() -> None:
    path = "/usr/lib/systemd/system/kubelet.service"
    unit = f"[Service]\nExecStart=/opt/bin/kubelet {FALSE}\n"
    seen = process(replace(evidence(), units=(path,), files={path: file(path, unit)}), argv=("/opt/bin/kubelet", FALSE))
    with pytest.raises(CannotPlan, match="belongs to the node image"):
        planned(seen)


def test_the_diff_is_for_people() -> None:
    seen = evidence(config_text=config(makeIPTablesUtilChains=False))
    shown = plan_node(node(1), ("3.2.6",), seen, "auto").diff
    assert shown.splitlines()[:3] == [f"--- {CONFIG}", f"+++ {CONFIG}", "@@ -1,5 +1,5 @@"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), JSON_VALUES, max_size=5)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw builds tables, on a busy machine slowly
@given(OBJECTS, st.sampled_from([None, 1, 2, 4, "\t"]), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_a_setting_is_added_to_any_json(value: dict[str, Any], indent: Any, compact: bool, newline: str) -> None:
    separators = (",", ":") if compact else None
    text = json.dumps(value, indent=indent, separators=separators).replace("\n", newline)
    new = add_setting(text, "makeIPTablesUtilChains", True)
    assert json.loads(new) == {**value, "makeIPTablesUtilChains": True}
    nested = add_setting(text, "authentication.anonymous.enabled", False)
    assert json.loads(nested) == {**value, "authentication": {"anonymous": {"enabled": False}}}
    assert new.count("\r\n") >= text.count("\r\n")


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("a: 1\n", "a: 1\nx.y: true\n"),
        ("a: 1", "a: 1\nx.y: true"),
        ("a: 1 # c\r\nb:\r\n  c: 2\r\n", "a: 1 # c\r\nx.y: true\r\nb:\r\n  c: 2\r\n"),
        ("a: |\n  text\n", "x.y: true\na: |\n  text\n"),
        ("---\n# c\na: {b: 1}\n", "---\n# c\nx.y: true\na: {b: 1}\n"),
        ("- 1\n", None),
        ("text", None),
        ("", None),
        ("a: [\n", None),
        ("{", None),
    ],
)
def test_a_setting_is_added_to_yaml(text: str, new: str | None) -> None:
    if new is None:
        with pytest.raises(EditError):
            add_setting(text, "x", True)
        return
    assert add_setting(text, "x", True) == new.replace("x.y", "x")


def test_nested_yaml_and_empty_values() -> None:
    assert add_setting("a:\n  b: 1\nc: 2\n", "a.x", False) == "a:\n  b: 1\n  x: false\nc: 2\n", (
        "a key joins its own mapping"
    )
    assert add_setting("a: {b: 1}\n", "a.x", False) == "a: {x: false, b: 1}\n"
    assert replace_value("a:\nb: 1\n", (2, 2), True) == "a: true\nb: 1\n"


LATIN = "M\udcfcller"


@pytest.mark.parametrize(
    ("seen", "path"),
    [
        (evidence(FALSE, files={ENVIRONMENT: f"# {LATIN}\nKUBELET_FLAGS={FALSE}\n"}), ENVIRONMENT),
        (evidence(unit=AKS_UNIT.replace("[Service]", f"# {LATIN}\n[Service]").replace("$KUBELET_FLAGS", FALSE)), UNIT),
        (
            evidence(config_text=config(providerID="x", makeIPTablesUtilChains=False).replace('"x"', f'"{LATIN}"')),
            CONFIG,
        ),
    ],
)
def test_bytes_that_are_not_utf_8_stay(seen: Evidence, path: str) -> None:
    made = planned(seen)
    assert set(made.texts) == {path}
    assert made.texts[path] == seen.files[path].text.replace("false", "true")
    assert LATIN in made.texts[path]
    shown = plan_node(node(1), ("3.2.6",), seen, "auto").diff + "".join(made.steps)
    assert LATIN not in shown
    shown.encode()


class TestRefusals:
    """No plan where a restart is not known to come to what the files come to, and none for another's file."""

    @pytest.mark.parametrize(
        ("seen", "says"),
        [
            (replace(evidence(FALSE), refuses_manual=True), "refuses to be restarted by hand"),
            (
                replace(evidence(FALSE), conditions=(Condition("ConditionPathExists=/x", holds=False),)),
                "does not hold now",
            ),
            (evidence(unit="[Service]\nExecStart=/opt/bin/start.sh\n", argv=["/opt/bin/kubelet", FALSE]), "start.sh"),
            (evidence(argv=["/opt/bin/kubelet", FALSE]), "other arguments than it runs with"),
            (replace(evidence(FALSE), process=None), "no kubelet process runs"),
            (process(evidence(FALSE), version=""), "nothing tells the kubelet's version"),
            (
                replace(
                    evidence(FALSE),
                    files={**evidence(FALSE).files, CONFIG: replace(file(CONFIG, config()), hosted=False)},
                ),
                "than the host",
            ),
            (
                evidence(
                    config_text=config(makeIPTablesUtilChains=False), links={CONFIG: "/usr/share/kubeletconfig.json"}
                ),
                "/usr/share/kubeletconfig.json belongs to the node image",
            ),
        ],
    )
    def test_it_says_why(self, seen: Evidence, says: str) -> None:
        with pytest.raises(CannotPlan, match=says):
            planned(seen)

    def test_one_file_under_two_names(self) -> None:
        """Two edits of one file would undo each other."""
        dropin = f"{CONFIG_DIR}/10-a.conf"
        text = config(makeIPTablesUtilChains=False)
        seen = evidence(DROPIN_FLAGS, text, files={dropin: text}, links={dropin: CONFIG})
        with pytest.raises(CannotPlan, match="one file would be edited under several names"):
            planned(seen)


@pytest.mark.parametrize(
    "seen",
    [
        evidence(" ".join([FALSE] * 9)),
        evidence(
            config_text="kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n"
            + 65 * "makeIPTablesUtilChains: false\n"
        ),
    ],
)
def test_more_edits_than_any_node_needs_are_not_planned(seen: Evidence) -> None:
    with pytest.raises(CannotPlan, match="are corrected"):
        planned(seen)


def test_many_files_are_corrected_at_once() -> None:
    wrong = config(makeIPTablesUtilChains=False)
    dropins = {f"{CONFIG_DIR}/{number:02}.conf": wrong for number in range(30)}
    made = planned(evidence(DROPIN_FLAGS, wrong, files=dropins))
    assert made.texts == dict.fromkeys((CONFIG, *dropins), config(makeIPTablesUtilChains=True))
    assert len(made.steps) == 31


def test_a_variable_used_twice_is_nobody_s_smallest_edit() -> None:
    with pytest.raises(CannotPlan, match="used more than once"):
        planned(evidence(FALSE, unit=AKS_UNIT.replace("$KUBELET_FLAGS", "$KUBELET_FLAGS $KUBELET_FLAGS")))

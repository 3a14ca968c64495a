"""Plans for every control: in files and flags of every form, several at once, and none that makes another one worse."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from shared.controls import Control, builtin, control, install, judge_all, read
from shared.kubelet import resolve
from shared.models import Evidence, Metadata, Status
from shared.node.edits import Method, Plan, plan
from shared.runs.model.plans import fault, plan_node
from shared.systemd import start_command
from tests.kubelet.test_cases import CASES, MINORS, minor_cases
from tests.support.configs import CERTIFICATES
from tests.support.evidence import (
    AKS_UNIT,
    CONFIG,
    CONFIG_DIR,
    DROPIN_FLAGS,
    ENVIRONMENT,
    UNIT,
    config,
    evidence,
    file,
    of_process,
    process,
    quoted,
)
from tests.support.findings import node

KUBECONFIG = "/var/lib/kubelet/kubeconfig"
AZURE_JSON = "/etc/kubernetes/azure.json"
OF_CLUSTER = f"--kubeconfig={KUBECONFIG}"
GATE = "RotateKubeletServerCertificate"
SETTINGS = [each for each in builtin().controls.values() if each.file is None]
PLANNED = [each for each in SETTINGS if not each.by_hand]
CERTIFICATE_FILES = {f"{CERTIFICATES}{name}": True for name in ("ca.crt", "kubeletserver.crt", "kubeletserver.key")}


def controls(*ids: str) -> list[Control]:
    return [control(name) for name in ids]


def after(seen: Evidence, made: Plan) -> Evidence:
    """The node after the plan was applied and the kubelet restarted."""
    files = {**seen.files, **{path: file(path, text) for path, text in made.texts.items()}}
    texts = {path: item.text for path, item in files.items()}
    argv = [argument.text for argument in start_command(seen.units[0], seen.units[1:], texts).argv]
    return process(replace(seen, files=files), argv=tuple(argv))


@pytest.mark.parametrize(
    ("minor", "method"),
    [*((minor, "auto") for minor in MINORS), ("1.31", "config"), ("1.36", "flags"), ("1.37", "config")],
)
def test_every_failing_case_of_every_control_is_planned_or_refused(minor: str, method: Method) -> None:
    """All failing controls of a case at once: those that are planned comply then, no other value changes, and a second
    plan changes nothing. Each kubelet is given a cluster, in which a few do not start: these are no running nodes."""
    planned: Counter[str] = Counter()
    cases = [(case, case["measured"][minor]) for case in minor_cases(minor)]
    cases += [(case, case) for case in CASES[::4] if minor == "1.36"]
    for case, truth in cases:
        if not truth["accepted"]:
            continue
        version = "v" + truth.get("version", "1.36.3")
        argv = ["/opt/bin/kubelet", OF_CLUSTER, *case["argv"][1:]]
        unit = "[Service]\nExecStart=" + " ".join(map(quoted, argv)) + "\n"
        seen = evidence(unit=unit, files=case["files"], argv=argv)
        seen = process(replace(seen, exists=CERTIFICATE_FILES), version=version)
        before = resolve(argv, case["files"], version=version)
        if not before.accepted:
            continue
        failing = [each for each in SETTINGS if not each.complies(before.effective(each.setting))]
        made = plan(failing, seen, version, method)
        assert {*made.controls, *made.refused} == {each.id for each in failing}, case["id"]
        assert all(made.refused.values())
        assert {each.id for each in failing if each.by_hand} <= set(made.refused)
        planned.update(made.controls)
        if not made.controls:
            continue
        then = after(seen, made)
        resolution = resolve(of_process(then).argv, then.texts, version=version)
        assert resolution.accepted, (case["id"], resolution.error)
        mine = {control(name).setting for name in made.controls}
        others = {path: value for path, value in truth["effective"].items() if path not in mine}
        assert {path: resolution.value(path) for path in others} == others, case["id"]
        verdicts = judge_all(controls(*made.controls), then, version)
        assert {verdict.status for verdict in verdicts.values()} == {Status.PASS}, (case["id"], verdicts)
        again = plan(controls(*made.controls), then, version, method)
        assert (again.texts, again.refused) == ({}, {}), case["id"]
    assert planned.keys() >= {"3.2.1", "3.2.4", "3.2.6", "3.2.8", "3.2.9"} - (
        {"3.2.4"} if method == "config" else set()
    )


WRONG: dict[str, tuple[Any, str]] = {
    "3.2.1": (True, "false"),
    "3.2.2": ("AlwaysAllow", '"Webhook"'),
    "3.2.4": (10255, "0"),
    "3.2.6": (False, "true"),
    "3.2.7": (3, "50"),
    "3.2.8": (False, "true"),
    "3.2.9": (False, "true"),
}


def written(setting: str, value: object) -> dict[str, Any]:
    """A setting as a config file has it."""
    first, _, rest = setting.partition(".")
    return {first: written(rest, value) if rest else value}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("place", ["json", "yaml", "drop-in"])
def test_a_wrong_value_in_a_file_is_all_that_changes(name: str, place: str) -> None:
    """Also where text stands in the place of text: in quotes, which both forms read."""
    each = control(name)
    wrong, right = WRONG[name]
    text = config(**written(each.setting, wrong))
    old = json.dumps(wrong)
    dropin = f"{CONFIG_DIR}/10-a.conf"
    if place == "yaml":
        old = str(wrong).lower() if isinstance(wrong, bool) else str(wrong)
        keys = each.setting.split(".")
        lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate(keys)]
        text = "# ours\nkind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n"
        text += "\n".join(lines) + f" {old}  # why?\n"
    seen = (
        evidence(f"{OF_CLUSTER} {DROPIN_FLAGS}", files={dropin: text})
        if place == "drop-in"
        else evidence(OF_CLUSTER, text)
    )
    made = plan([each], seen, None, "auto")
    path = dropin if place == "drop-in" else CONFIG
    at = text.rindex(old)
    assert (made.refused, made.texts) == ({}, {path: text[:at] + right + text[at + len(old) :]})
    assert judge_all([each], after(seen, made))[name].status is Status.PASS


FLAGS = {
    "3.2.1": ("--anonymous-auth", "--anonymous-auth=false"),
    "3.2.2": ("--authorization-mode=AlwaysAllow", "--authorization-mode=Webhook"),
    "3.2.4": ("--read-only-port=10255", "--read-only-port=0"),
    "3.2.5": ("--streaming-connection-idle-timeout=0s", "--streaming-connection-idle-timeout=4h0m0s"),
    "3.2.6": ("--make-iptables-util-chains=F", "--make-iptables-util-chains=true"),
    "3.2.7": ("--event-qps=1", "--event-qps=50"),
    "3.2.8": ("--rotate-certificates=0", "--rotate-certificates=true"),
    "3.2.9": (f"--feature-gates=CPUManager=true,{GATE}=false", f"--feature-gates=CPUManager=true,{GATE}=true"),
}


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("place", ["environment", "unit", "drop-in"])
def test_a_wrong_flag_is_corrected_where_it_is_written(name: str, place: str) -> None:
    wrong, right = FLAGS[name]
    wrong, right = (words.replace("CPUManager=true", "KubeletPodResourcesGet=true") for words in (wrong, right))
    dropin = "/etc/systemd/system/kubelet.service.d/10-own.conf"
    unit = AKS_UNIT.replace("--enable-server", "--enable-server $KUBELET_OWN")
    if place == "environment":
        seen, path = evidence(f"{OF_CLUSTER} {wrong} --v=2"), ENVIRONMENT
    elif place == "unit":
        seen, path = evidence(OF_CLUSTER, unit=AKS_UNIT.replace("--enable-server", wrong)), UNIT
    else:
        text = f'[Service]\nEnvironment="KUBELET_OWN={wrong}"\n'
        texts = {UNIT: unit, ENVIRONMENT: f"KUBELET_FLAGS={OF_CLUSTER}\n", dropin: text}
        argv = [argument.text for argument in start_command(UNIT, (dropin,), texts).argv]
        seen = replace(evidence(OF_CLUSTER, unit=unit, files={dropin: text}, argv=argv), units=(UNIT, dropin))
        path = dropin
    made = plan([control(name)], seen, None, "auto")
    assert (made.refused, made.texts) == ({}, {path: seen.files[path].text.replace(wrong, right)})
    assert (made.present, made.absent) == ((right,), (wrong,))
    assert judge_all(controls(name), after(seen, made))[name].status is Status.PASS


@pytest.mark.parametrize(
    ("name", "wrong", "right", "present", "absent"),
    [
        ("3.2.4", "--read-only-port 10255", "--read-only-port 0", ("--read-only-port", "0"), ("10255",)),
        ("3.2.4", "--max-pods 10255 --read_only_port 10255", "--max-pods 10255 --read_only_port 0",
         ("--read_only_port", "0"), ()),
        ("3.2.2", "--authorization-mode AlwaysAllow", "--authorization-mode Webhook",
         ("--authorization-mode", "Webhook"), ("AlwaysAllow",)),
        ("3.2.9", f"--feature-gates {GATE}=false", f"--feature-gates {GATE}=true",
         ("--feature-gates", f"{GATE}=true"), (f"{GATE}=false",)),
    ],
)  # fmt: skip
def test_a_flag_of_two_words_is_looked_for_as_two(
    name: str, wrong: str, right: str, present: Sequence[str], absent: Sequence[str]
) -> None:
    seen = evidence(f"{OF_CLUSTER} {wrong}")
    made = plan([control(name)], seen, None, "auto")
    assert (made.refused, made.texts) == ({}, {ENVIRONMENT: f"KUBELET_FLAGS={OF_CLUSTER} {right}\n"})
    assert (set(made.present), set(made.absent)) == (set(present), set(absent))
    assert set(present) <= set(of_process(after(seen, made)).argv)


def test_of_a_list_of_gates_one_changes() -> None:
    flags = f"--feature-gates=KubeletPodResourcesGet=true,{GATE}=false --feature-gates={GATE}=0"
    made = plan(controls("3.2.9"), evidence(flags), None, "auto")
    assert made.texts == {
        ENVIRONMENT: f"KUBELET_FLAGS={flags.replace('false', 'true').replace('=0', '=true')}\n",
    }


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("auto", CONFIG, config(featureGates={GATE: True})),
        ("flags", ENVIRONMENT, f"KUBELET_FLAGS=--feature-gates=AllBeta=false --feature-gates={GATE}=true\n"),
    ],
)
def test_a_gate_that_its_group_switches_off_is_set_by_name(method: Method, path: str, text: str) -> None:
    seen = process(evidence("--feature-gates=AllBeta=false"), version="v1.33.5")
    made = plan(controls("3.2.9"), seen, None, method)
    assert made.refused == {}
    assert list(made.texts) == [path]
    assert json.loads(made.texts[path]) == json.loads(text) if path == CONFIG else made.texts[path] == text
    assert judge_all(controls("3.2.9"), after(seen, made))["3.2.9"].status is Status.PASS


def test_a_group_s_flag_proves_nothing_about_a_gate_that_a_file_may_set() -> None:
    seen = process(evidence("--feature-gates=AllBeta=false", config(featureGates={GATE: True})), version="v1.33.5")
    changed = replace(seen, files={**seen.files, CONFIG: replace(seen.files[CONFIG], changed=seen.collected)})
    assert judge_all(controls("3.2.9"), seen)["3.2.9"].status is Status.PASS
    assert judge_all(controls("3.2.9"), changed)["3.2.9"].status is Status.ERROR


def test_without_a_config_file_the_legacy_defaults_are_overruled_by_flags() -> None:
    unit = AKS_UNIT.replace("$KUBELET_CONFIG_FILE_FLAGS ", "")
    seen = evidence(OF_CLUSTER, unit=unit)
    made = plan(controls("3.2.1", "3.2.2", "3.2.4", "3.2.8"), seen, None, "auto")
    new = ("--anonymous-auth=false", "--authorization-mode=Webhook", "--read-only-port=0", "--rotate-certificates=true")
    assert made.texts == {ENVIRONMENT: f"KUBELET_FLAGS={OF_CLUSTER} {' '.join(new)}\n"}
    assert set(made.present) == set(new)


def test_a_timeout_of_0_in_a_file_is_the_default_and_complies() -> None:
    seen = evidence(config_text=config(streamingConnectionIdleTimeout="0s"))
    assert judge_all(controls("3.2.5"), seen)["3.2.5"].status is Status.PASS
    assert plan(controls("3.2.5"), evidence(), None, "auto").texts == {}


def test_edits_of_one_file_are_one_and_what_cannot_be_planned_keeps_nothing_up() -> None:
    text = config(
        authentication={"anonymous": {"enabled": True}},
        readOnlyPort=10255,
        eventRecordQPS=3,
        makeIPTablesUtilChains=False,
    )
    made = plan(SETTINGS, evidence(OF_CLUSTER, text), None, "auto")
    assert list(made.refused) == ["3.2.3"]
    assert "reimage the node" in made.refused["3.2.3"]
    assert list(made.texts) == [CONFIG]
    assert json.loads(made.texts[CONFIG]) == {
        **json.loads(text),
        "authentication": {"anonymous": {"enabled": False}},
        "readOnlyPort": 0,
        "eventRecordQPS": 50,
        "makeIPTablesUtilChains": True,
        "rotateCertificates": True,
    }


def test_an_edit_that_cannot_be_sent_keeps_the_others_from_nothing() -> None:
    long = config(providerID="x" * 65_430)
    made = plan(controls("3.2.8", "3.2.4"), evidence(f"{OF_CLUSTER} --read-only-port=10255", long), None, "auto")
    assert (made.controls, list(made.texts)) == (("3.2.4",), [ENVIRONMENT])
    assert "at most 65,536 can be read again" in made.refused["3.2.8"]


def test_a_kubelet_without_a_cluster_is_not_made_to_end() -> None:
    seen = evidence(config_text=config(authorization={"mode": "AlwaysAllow"}, readOnlyPort=1))
    made = plan(controls("3.2.2", "3.2.4"), seen, None, "auto")
    assert made.controls == ("3.2.4",)
    assert made.refused["3.2.2"] == (
        "without --kubeconfig this kubelet has no API server, and would end with authorization.mode Webhook"
    )


OWN = """
controls:
- {id: many, title: t, severity: low, setting: eventRecordQPS, flag: --event-qps, rule: {at_least: 100},
   rationale: r, fix: f}
- {id: five, title: t, severity: low, setting: eventRecordQPS, flag: --event-qps, rule: {one_of: [5]},
   rationale: r, fix: f}
- {id: few, title: t, severity: low, setting: eventRecordQPS, flag: --event-qps, rule: {none_of: [3]}, write: 1,
   rationale: r, fix: f}
- {id: theirs, title: t, severity: low, file: {flag: --kubeconfig}, rule: {owner: "0:7"}, rationale: r, fix: f}
- {id: new, title: t, severity: low, setting: crashLoopBackOff.maxContainerRestartPeriod, rule: {none_of: [1s]},
   write: 5m0s, rationale: r, fix: f}
- {id: gate, title: t, severity: low, setting: featureGates.NoSuchGateInAnyMinor, flag: --feature-gates,
   rule: {equals: true}, rationale: r, fix: f}
"""


@pytest.fixture
def own() -> Iterator[None]:
    install(read(OWN, "own.yaml", builtin()))
    yield
    install(builtin())


def test_no_plan_makes_another_control_worse(own: None) -> None:
    """Neither one that complied before, nor one that another plan of the same node has just made comply."""
    seen = evidence(OF_CLUSTER, config(eventRecordQPS=3))
    right = evidence(OF_CLUSTER, config(eventRecordQPS=7))
    assert plan(controls("five"), right, None, "auto").texts == {CONFIG: config(eventRecordQPS=5)}
    assert plan(controls("many"), seen, None, "auto").texts == {CONFIG: config(eventRecordQPS=100)}
    worse = plan(controls("few"), evidence(OF_CLUSTER, config(eventRecordQPS=3)), None, "auto")
    assert worse.texts == {CONFIG: config(eventRecordQPS=1)}, "3 fails 3.2.7 as well: 1 is no worse"
    both = plan(controls("many", "five"), seen, None, "auto")
    assert (both.controls, both.texts) == (("many",), {CONFIG: config(eventRecordQPS=100)})
    assert both.refused == {"five": "many (eventRecordQPS) would not comply any more"}
    lower = plan(controls("five"), evidence(OF_CLUSTER, config(eventRecordQPS=200)), None, "auto")
    assert lower.refused == {"five": "many (eventRecordQPS) would not comply any more"}


def test_no_owner_is_set_that_another_control_forbids(own: None) -> None:
    seen = replace(evidence(OF_CLUSTER), metadata={KUBECONFIG: Metadata(KUBECONFIG, 0o600, 0, 0)})
    assert plan(controls("theirs"), seen, None, "auto").refused == {
        "theirs": "3.1.2 (the owner of the file of --kubeconfig) would not comply any more"
    }
    neither = replace(seen, metadata={KUBECONFIG: Metadata(KUBECONFIG, 0o600, 8, 8)})
    made = plan(controls("3.1.2", "theirs"), neither, None, "auto")
    assert (made.controls, list(made.refused)) == (("3.1.2",), ["theirs"])


def test_a_setting_that_the_version_does_not_have_is_not_this_nodes(own: None) -> None:
    old = process(evidence(OF_CLUSTER), version="v1.31.1")
    verdicts = judge_all(controls("new", "gate"), old)
    assert {verdict.status for verdict in verdicts.values()} == {Status.NOT_APPLICABLE}
    made = plan(controls("new", "gate", "3.2.8"), old, None, "auto")
    assert (made.controls, set(made.refused)) == (("3.2.8",), {"new", "gate"})
    unknown = judge_all(controls("gate"), process(evidence(OF_CLUSTER), version="v1.99.0"))
    assert unknown["gate"].code == "version_unknown"


FILES = ("3.1.1", "3.1.2", "3.1.3", "3.1.4")


def test_modes_and_owners_of_one_file_are_one_edit() -> None:
    seen = replace(
        evidence(OF_CLUSTER),
        metadata={
            KUBECONFIG: Metadata(KUBECONFIG, 0o4775, 1000, 0),
            AZURE_JSON: Metadata(AZURE_JSON, 0o600, 0, 0),
        },
    )
    made = plan_node(node(1), FILES[:2], seen, "auto")
    (edit,) = made.modes
    assert (edit.mode, edit.uid, edit.gid, edit.new_mode, edit.new_uid, edit.new_gid) == (0o4775, 1000, 0, 0o644, 0, 0)
    assert (made.restart, made.edits, made.present, fault(made)) == (False, (), (), "")
    assert made.steps == (
        f"set the mode of {KUBECONFIG} from 4775 to 644",
        f"set the owner of {KUBECONFIG} from 1000:root to root:root",
    )


def test_a_new_owner_is_none_whose_program_anybody_runs() -> None:
    """Whoever owned the file wrote it, and could have set these bits: chown(2) clears them, and they stay cleared."""
    seen = replace(evidence(OF_CLUSTER), metadata={AZURE_JSON: Metadata(AZURE_JSON, 0o6755, 1000, 0)})
    made = plan_node(node(1), ("3.1.4",), seen, "auto")
    (edit,) = made.modes
    assert (edit.new_mode, edit.new_uid, edit.new_gid, fault(made)) == (0o755, 0, 0, "")
    assert made.steps == (
        f"set the owner of {AZURE_JSON} from 1000:root to root:root, which takes its set-ID bits away"
        " (mode 6755 to 755)",
    )
    forged = made.model_copy(update={"modes": (replace(edit, new_mode=0o4755),)})
    assert fault(forged) == f"{AZURE_JSON!r} would run as its new owner"


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, "was not seen as a file"),
        ({AZURE_JSON: None}, "was not seen as a file"),
        ({AZURE_JSON: Metadata(AZURE_JSON, 0o777, 0, 0, regular=False)}, "was not seen as a file"),
        ({AZURE_JSON: Metadata(AZURE_JSON, 0o777, 0, 0, hosted=False)}, "another .* than the host"),
    ],
)
def test_what_was_not_seen_gets_no_mode(metadata: dict[str, Metadata | None], says: str) -> None:
    seen = replace(evidence(f"{OF_CLUSTER} --read-only-port=1"), metadata=metadata)
    made = plan(controls("3.1.3", "3.2.4"), seen, None, "auto")
    assert made.controls == ("3.2.4",)
    assert made.refused["3.1.3"].startswith("the kubelet's process has another" if "host" in says else AZURE_JSON)


class TestFiles:
    """Verdicts on files: of what the kubelet names, and of what has a place of its own."""

    def test_what_is_not_looked_at_or_not_there_is_no_pass(self) -> None:
        bare = evidence(OF_CLUSTER)
        found = judge_all(controls(*FILES), bare)
        assert {each.code for each in found.values()} == {"unproved"}
        gone = judge_all(controls(*FILES), replace(bare, metadata={KUBECONFIG: None, AZURE_JSON: None}))
        assert [gone[name].status for name in FILES] == [Status.ERROR] * 2 + [Status.NOT_APPLICABLE] * 2
        assert {each.code for each in gone.values()} == {"file_missing"}

    def test_without_the_flag_or_a_kubelet_there_is_no_verdict_on_its_file(self) -> None:
        right = {AZURE_JSON: Metadata(AZURE_JSON, 0o600, 0, 0)}
        for seen, code in (
            (replace(evidence(), metadata=right), "no_such_file"),
            (replace(evidence(OF_CLUSTER), metadata=right, process=None), "kubelet_not_running"),
            (replace(evidence(OF_CLUSTER, argv=["/bin/sleep", OF_CLUSTER]), metadata=right), "kubelet"),
        ):
            changed = process(seen, executable="/bin/sleep") if code == "kubelet" else seen
            found = judge_all(controls(*FILES), changed)
            expected = "not_a_kubelet" if code == "kubelet" else code
            assert {found[name].code for name in FILES[:2]} == {expected}
            assert {found[name].status for name in FILES[:2]} == {Status.ERROR}
            assert {found[name].status for name in FILES[2:]} == {Status.PASS}, "which needs no kubelet"

    @pytest.mark.parametrize(
        ("mode", "right"),
        [(0o644, True), (0o600, True), (0o400, True), (0, True), (0o664, False), (0o645, False), (0o4644, False)],
    )
    def test_644_or_stricter(self, mode: int, right: bool) -> None:
        seen = replace(evidence(OF_CLUSTER), metadata={KUBECONFIG: Metadata(KUBECONFIG, mode, 0, 0)})
        assert (judge_all(controls("3.1.1"), seen)["3.1.1"].status is Status.PASS) is right

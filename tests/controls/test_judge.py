"""Verdicts: what runs, what is on disk, and what is only pending."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.controls import CONTROLS, control, judge
from shared.models import Evidence, Status
from tests.support.evidence import AKS_UNIT, CONFIG, ENVIRONMENT, STARTED, UNIT, config, edited, evidence

CONTROL = control("3.2.6")
FALSE = "--make-iptables-util-chains=false"
TRUE = "--make-iptables-util-chains=true"


def test_the_controls_are_whole() -> None:
    assert len({entry.id for entry in CONTROLS}) == len(CONTROLS)
    for entry in CONTROLS:
        for words in (entry.title, entry.rationale, entry.impact, entry.fix, entry.setting, entry.flag):
            assert words.strip()
        assert entry.complies(entry.expected)
        assert not entry.complies(not entry.expected)
        assert not entry.complies(None)
        assert not entry.complies(int(entry.expected))


@pytest.mark.parametrize(
    ("seen", "source"),
    [
        (evidence(), "default"),
        (evidence(f"--v=2 {TRUE}"), f"flag {TRUE} (argument 5)"),
        (evidence(config_text=config(makeIPTablesUtilChains=True)), f"{CONFIG}:4"),
        (evidence(f"{FALSE} {TRUE}"), f"flag {TRUE} (argument 5)"),
        (evidence(TRUE, config(makeIPTablesUtilChains=False)), f"flag {TRUE} (argument 4)"),
        (evidence("--make_iptables_util_chains=T"), "flag --make_iptables_util_chains=T (argument 4)"),
    ],
)
def test_pass(seen: Evidence, source: str) -> None:
    verdict = judge(CONTROL, seen)
    assert (verdict.status, verdict.actual, verdict.source) == (Status.PASS, True, source)
    assert not verdict.restart_pending


@pytest.mark.parametrize(
    ("seen", "source"),
    [
        (evidence(FALSE), f"flag {FALSE} (argument 4)"),
        (evidence(config_text=config(makeIPTablesUtilChains=False)), f"{CONFIG}:4"),
        (evidence(f"{TRUE} {FALSE}", config(makeIPTablesUtilChains=True)), f"flag {FALSE} (argument 5)"),
    ],
)
def test_fail(seen: Evidence, source: str) -> None:
    verdict = judge(CONTROL, seen)
    assert (verdict.status, verdict.code, verdict.actual, verdict.source) == (Status.FAIL, "wrong", False, source)
    assert "must be true" in verdict.reason
    assert verdict.hint.endswith("then restart the kubelet. `kubelet-guard plan` shows the edits.")


def test_the_hint_names_every_place() -> None:
    hint = judge(CONTROL, evidence(FALSE, config(makeIPTablesUtilChains=False))).hint
    assert f"Set makeIPTablesUtilChains: true in {CONFIG}, line 4; change {FALSE} to {TRUE}" in hint


def test_a_flag_waits_for_a_restart() -> None:
    """The environment file was corrected; the process runs as it was started, which its arguments prove."""
    verdict = judge(CONTROL, edited(evidence(FALSE), ENVIRONMENT, f"KUBELET_FLAGS={TRUE}\n"))
    assert (verdict.status, verdict.code, verdict.actual) == (Status.FAIL, "restart_pending", False)
    assert verdict.restart_pending
    assert verdict.hint == "Restart the kubelet: systemctl restart kubelet"


def test_a_unit_waits_for_daemon_reload_and_restart() -> None:
    before = replace(evidence(FALSE), needs_daemon_reload=True)
    verdict = judge(CONTROL, edited(before, UNIT, AKS_UNIT.replace("$KUBELET_FLAGS", TRUE)))
    assert verdict.code == "restart_pending"
    assert "systemctl daemon-reload && systemctl restart kubelet" in verdict.hint


def test_right_now_but_wrong_after_a_restart_is_no_pass() -> None:
    verdict = judge(CONTROL, edited(evidence(TRUE), ENVIRONMENT, f"KUBELET_FLAGS={FALSE}\n"))
    assert (verdict.status, verdict.code, verdict.actual) == (Status.FAIL, "wrong_after_restart", True)
    assert verdict.restart_pending


@pytest.mark.parametrize(("after", "code"), [(True, "restart_pending"), (False, "wrong_after_restart")])
def test_a_config_file_changed_after_the_start_proves_nothing(after: bool, code: str) -> None:
    seen = evidence(config_text=config(makeIPTablesUtilChains=not after))
    verdict = judge(CONTROL, edited(seen, CONFIG, config(makeIPTablesUtilChains=after)))
    assert (verdict.status, verdict.code, verdict.actual) == (Status.FAIL, code, None)
    assert verdict.restart_pending
    assert "a restart is pending" in verdict.reason


def test_a_flag_decides_whatever_happened_to_the_file() -> None:
    verdict = judge(CONTROL, edited(evidence(TRUE), CONFIG, config(makeIPTablesUtilChains=False)))
    assert (verdict.status, verdict.actual) == (Status.PASS, True)


def test_a_file_written_as_the_process_started_was_read() -> None:
    seen = evidence()
    at_start = replace(seen.files[CONFIG], changed=int(STARTED) + 1)
    assert judge(CONTROL, replace(seen, files={**seen.files, CONFIG: at_start})).status is Status.PASS


def test_a_dropin_removed_after_the_start_shows_in_its_directory() -> None:
    directory = "/etc/kubernetes/kubelet.conf.d"
    seen = evidence(f"--config-dir={directory}")
    quiet = replace(seen, directories={directory: int(STARTED) - 5})
    assert judge(CONTROL, quiet).status is Status.PASS
    changed = replace(seen, directories={directory: int(STARTED) + 500})
    assert judge(CONTROL, changed).code == "restart_pending"


def test_a_config_that_would_be_refused() -> None:
    broken = config(makeIPTablesUtilChains="yes")
    verdict = judge(CONTROL, edited(evidence(), CONFIG, broken))
    assert (verdict.status, verdict.code) == (Status.ERROR, "config_refused")
    verdict = judge(CONTROL, edited(evidence(), ENVIRONMENT, "KUBELET_FLAGS=--no-such-flag\n"))
    assert (verdict.status, verdict.code, verdict.restart_pending) == (Status.ERROR, "next_start_refused", True)


def test_what_runs_although_our_rules_refuse_it_is_not_guessed() -> None:
    verdict = judge(CONTROL, evidence("--flag-of-the-future=1"))
    assert (verdict.status, verdict.code) == (Status.ERROR, "not_understood")


def test_an_unknown_unit_leaves_the_running_value_standing() -> None:
    seen = evidence(
        unit=AKS_UNIT.replace("$KUBELET_FLAGS", "--hostname-override=%b"), argv=["/opt/bin/kubelet", "--v=2"]
    )
    verdict = judge(CONTROL, seen)
    assert verdict.status is Status.PASS
    assert "cannot be told" in verdict.reason


@pytest.mark.parametrize(
    "seen",
    [
        replace(
            evidence(),
            files={k: v for k, v in evidence().files.items() if k != ENVIRONMENT},
            gone=frozenset({ENVIRONMENT}),
        ),
        edited(evidence(), UNIT, AKS_UNIT.replace("ExecStart=", "ExecStart=\nExecStop=")),
        edited(evidence(), UNIT, AKS_UNIT.replace("--enable-server", '"--enable-server')),
        replace(
            edited(evidence(), UNIT, AKS_UNIT.replace("kubeletconfig.json", "other.json")),
            gone=frozenset({"/etc/default/other.json"}),
        ),
    ],
)
def test_what_could_not_be_started_again_is_no_pass(seen: Evidence) -> None:
    verdict = judge(CONTROL, seen)
    assert (verdict.status, verdict.code, verdict.restart_pending) == (Status.ERROR, "next_start_refused", True)


def test_an_environment_file_that_was_not_collected_is_not_taken_for_absent() -> None:
    unit = AKS_UNIT.replace("ExecStart=", "EnvironmentFile=-/etc/default/extra\nExecStart=")
    verdict = judge(CONTROL, edited(evidence(), UNIT, unit))
    assert (verdict.status, "/etc/default/extra was not collected" in verdict.reason) == (Status.PASS, True)
    there = edited(edited(evidence(), UNIT, unit), "/etc/default/extra", f"KUBELET_FLAGS={FALSE}\n")
    assert judge(CONTROL, there).status is Status.FAIL


@pytest.mark.parametrize(
    "flag", ["--node-labels=a=**", "--node_labels=a=**", "--node-labels a=**", "--node_labels a=*"]
)
def test_masked_labels_in_every_spelling(flag: str) -> None:
    assert judge(CONTROL, evidence(flag)).status is Status.PASS


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (replace(evidence(), argv=(), started=None, pid=0, sub_state="auto-restart"), "kubelet_not_running"),
        (replace(evidence(), argv=(), started=None, pid=0, load_state="not-found", units=()), "no_kubelet"),
        (replace(evidence(), argv=("/bin/sh", "/start-kubelet.sh")), "not_a_kubelet"),
        (replace(evidence(), overflow=True), "too_many_files"),
        (replace(evidence(), files={k: v for k, v in evidence().files.items() if k != CONFIG}), "config_unreadable"),
        (replace(evidence("--config-dir=/etc/k.d"), directories={}), "config_unreadable"),
        (
            replace(evidence(), files={**evidence().files, CONFIG: replace(evidence().files[CONFIG], whole=False)}),
            "config_unreadable",
        ),
    ],
)
def test_what_cannot_be_determined(seen: Evidence, code: str) -> None:
    verdict = judge(CONTROL, seen)
    assert (verdict.status, verdict.code, verdict.actual) == (Status.ERROR, code, None)
    assert verdict.reason
    assert verdict.hint or code == "too_many_files"


def test_a_crash_loop_says_why() -> None:
    seen = replace(evidence(config_text=config(makeIPTablesUtilChains="yes")), argv=(), started=None, pid=0)
    assert "refuses to start" in judge(CONTROL, seen).reason


def test_masked_label_values_do_not_matter() -> None:
    argv = ["/opt/bin/kubelet", "--node-labels=agentpool=****,team=*"]
    unit = AKS_UNIT.replace("--enable-server", "--node-labels=${KUBELET_NODE_LABELS}")
    environment = {ENVIRONMENT: "KUBELET_NODE_LABELS=agentpool=****,team=*\nKUBELET_FLAGS=\n"}
    assert judge(CONTROL, evidence(unit=unit, files=environment, argv=argv)).status is Status.PASS

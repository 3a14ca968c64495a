"""Verdicts: what runs, what proves it, what a restart would run, and what is only pending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from shared.controls import Code, Verdict, builtin, control, judge
from shared.kubelet import knows
from shared.models import Condition, Evidence, Health, Link, Mount, Status
from tests.support.evidence import (
    AKS_UNIT,
    BEFORE,
    CONFIG,
    CONFIG_DIR,
    DROPIN_FLAGS,
    ENVIRONMENT,
    SECOND,
    STARTED,
    UNIT,
    config,
    edited,
    evidence,
    file,
    of_process,
    process,
    touched,
    without,
)

CONTROL = control("3.2.6")
FALSE = "--make-iptables-util-chains=false"
TRUE = "--make-iptables-util-chains=true"
DROPIN = f"{CONFIG_DIR}/10-a.conf"
WITH_DROPIN = evidence(DROPIN_FLAGS, files={DROPIN: config(makeIPTablesUtilChains=True)})
KUBELET = f"/opt/bin/kubelet --config={CONFIG}"


def said(verdict: Verdict) -> tuple[Status, str, object]:
    return verdict.status, verdict.code, verdict.actual


def rewritten(now: bool) -> Evidence:
    """The config file said the contrary when the kubelet read it."""
    seen = evidence(config_text=config(makeIPTablesUtilChains=not now))
    return edited(seen, CONFIG, config(makeIPTablesUtilChains=now))


def unit(*lines: str, exec_start: str = KUBELET) -> str:
    return "\n".join(["[Service]", *lines, f"ExecStart={exec_start}", ""])


def test_the_controls_are_whole() -> None:
    assert len(builtin().controls) == 13
    for entry in builtin().controls.values():
        assert entry.title
        assert entry.rationale
        if entry.file is None:
            assert knows(entry.setting, entry.flag) == ""
            assert entry.by_hand or entry.complies(entry.right)


def test_every_code_says_what_it_means() -> None:
    assert all(code.meaning and code.value == str(code) for code in Code)
    assert f"{Code.UNPROVED}" == "unproved"


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
    assert "not known" not in verdict.reason


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


class TestProof:
    """Where the files may not be what the process read, only a witness decides."""

    @pytest.mark.parametrize("now", [True, False])
    def test_a_config_file_changed_after_the_start_proves_nothing(self, now: bool) -> None:
        verdict = judge(CONTROL, rewritten(now))
        assert said(verdict) == (Status.ERROR, "unproved", None)
        assert not verdict.restart_pending
        assert "restart is pending" not in verdict.reason
        assert "own log" in verdict.hint

    @pytest.mark.parametrize(("flag", "status"), [(TRUE, Status.PASS), (FALSE, Status.FAIL)])
    def test_a_flag_decides_whatever_happened_to_the_file(self, flag: str, status: Status) -> None:
        seen = evidence(flag, config(makeIPTablesUtilChains=flag == FALSE))
        assert judge(CONTROL, touched(seen, CONFIG)).status is status

    def test_a_flag_decides_where_the_file_cannot_be_read(self) -> None:
        broken = edited(evidence(TRUE), CONFIG, "{")
        assert said(judge(CONTROL, broken)) == (Status.ERROR, "next_start_refused", True)
        assert said(judge(CONTROL, without(evidence(TRUE), CONFIG, gone=True)))[1:] == ("next_start_refused", True)

    def test_a_file_written_as_the_process_started_was_perhaps_read(self) -> None:
        assert judge(CONTROL, touched(evidence(), CONFIG, STARTED + SECOND)).code == "unproved"
        assert judge(CONTROL, touched(evidence(), CONFIG, STARTED - SECOND)).status is Status.PASS

    @pytest.mark.parametrize(
        "seen",
        [
            touched(evidence(), CONFIG),
            touched(WITH_DROPIN, CONFIG_DIR),
            touched(WITH_DROPIN, DROPIN),
            touched(touched(WITH_DROPIN, "/etc/default"), "/etc"),
            replace(evidence(), mounts=(Mount(CONFIG, "/opt/x", "ext4", "/dev/sda1", same=False),)),
            process(evidence(), started=None),
        ],
    )
    def test_an_earlier_look_that_was_proved_is_a_witness(self, seen: Evidence) -> None:
        """A chmod, a hard link, a README in the directory: the content is that of the last proved look."""
        assert judge(CONTROL, seen).code == "unproved"
        quiet = WITH_DROPIN if CONFIG_DIR in seen.directories else evidence()
        proof = judge(CONTROL, quiet).proof
        verdict = judge(CONTROL, seen, proof=proof)
        assert (verdict.status, verdict.proof) == (Status.PASS, proof)
        restarted = judge(CONTROL, process(seen, pid=77), proof=proof)
        assert (restarted.code, restarted.proof) == ("unproved", "")

    def test_only_a_proved_look_gives_a_proof(self) -> None:
        assert judge(CONTROL, evidence()).proof
        assert judge(CONTROL, evidence(FALSE)).proof
        assert judge(CONTROL, touched(evidence(), CONFIG)).proof == ""
        assert judge(CONTROL, touched(evidence(TRUE), CONFIG)).proof == "", "the flag is proved, the file is not"
        log = {"makeIPTablesUtilChains": "true"}
        assert judge(CONTROL, replace(touched(evidence(), CONFIG), log=log)).proof == ""

    @pytest.mark.parametrize(
        ("seen", "proved"),
        [
            (evidence(unit=unit(f"BindReadOnlyPaths=/opt/real.json:{CONFIG}")), True),
            (evidence(unit=unit()), False),
            (touched(evidence(unit=unit(f"BindReadOnlyPaths=/opt/real.json:{CONFIG}")), UNIT), False),
        ],
    )
    def test_the_unit_s_own_mounts_are_explained(self, seen: Evidence, proved: bool) -> None:
        config_file = replace(seen.files[CONFIG], hosted=False, text=config(makeIPTablesUtilChains=False))
        mount = Mount(CONFIG, "/opt/real.json", "ext4", "/dev/sda1", same=False)
        verdict = judge(CONTROL, replace(seen, files={**seen.files, CONFIG: config_file}, mounts=(mount,)))
        assert verdict.status is (Status.FAIL if proved else Status.ERROR), verdict
        assert not verdict.restart_pending
        if proved:
            assert "another /etc/default/kubeletconfig.json than the host" in verdict.reason

    def test_a_dropin_removed_after_the_start_shows_in_its_directory(self) -> None:
        seen = evidence(DROPIN_FLAGS)
        assert judge(CONTROL, seen).status is Status.PASS
        assert judge(CONTROL, touched(seen, CONFIG_DIR)).code == "unproved"

    @pytest.mark.parametrize(
        ("seen", "code"),
        [
            (without(WITH_DROPIN, DROPIN, gone=True), "config_unreadable"),
            (replace(WITH_DROPIN, listings={CONFIG_DIR: None}), "listing_unknown"),
        ],
    )
    def test_a_dropin_that_cannot_be_read_is_not_passed_over(self, seen: Evidence, code: str) -> None:
        assert said(judge(CONTROL, seen)) == (Status.ERROR, code, None)


class TestLog:
    """The kubelet's own log decides, whatever the files say."""

    @pytest.mark.parametrize("now", [True, False])
    def test_it_decides_against_changed_files(self, now: bool) -> None:
        seen = replace(rewritten(now), log={"makeIPTablesUtilChains": str(not now).lower()})
        verdict = judge(CONTROL, seen)
        assert (verdict.status, verdict.actual) == (Status.FAIL, not now)
        assert verdict.code == ("restart_pending" if now else "wrong_after_restart")
        assert verdict.source == "the kubelet's own log"
        assert "as they are now, come to" in verdict.reason

    def test_what_it_leaves_out_has_go_s_zero_value(self) -> None:
        verdict = judge(CONTROL, replace(evidence(), log={}))
        assert (verdict.status, verdict.actual) == (Status.FAIL, False)

    def test_it_agrees(self) -> None:
        verdict = judge(CONTROL, replace(touched(evidence(), CONFIG), log={"makeIPTablesUtilChains": "true"}))
        assert (verdict.status, verdict.source) == (Status.PASS, "default; the kubelet's own log agrees")

    def test_links_mounts_and_unreadable_files_do_not_matter_to_it(self) -> None:
        log = {"makeIPTablesUtilChains": "true"}
        mount = Mount(CONFIG, "/opt/x", "ext4", "/dev/sda1", same=False)
        assert judge(CONTROL, replace(evidence(), mounts=(mount,), log=log)).status is Status.PASS
        unread = replace(WITH_DROPIN, listings={CONFIG_DIR: None}, log=log)
        verdict = judge(CONTROL, unread)
        assert (verdict.status, "what a restart would run is not known" in verdict.reason) == (Status.PASS, True)

    def test_what_is_no_value_is_not_guessed(self) -> None:
        verdict = judge(CONTROL, replace(evidence(), log={"makeIPTablesUtilChains": "{"}))
        assert said(verdict) == (Status.ERROR, "not_understood", None)


class TestVersion:
    def test_the_process_s_own_counts(self) -> None:
        """The flag went in 1.35: a node that its pool's upgrade has not reached yet still has it."""
        seen = process(evidence("--pod-infra-container-image=registry.example/pause:3.9"), version="v1.34.2")
        assert judge(CONTROL, seen, "1.36.1").status is Status.PASS

    def test_the_pool_s_counts_where_the_process_s_is_not_known(self) -> None:
        assert judge(CONTROL, process(evidence(), version=""), "1.36.1").status is Status.PASS
        assert judge(CONTROL, process(evidence(), version="")).code == "version_unknown"

    def test_an_unknown_version_may_fail_and_may_not_pass(self) -> None:
        assert judge(CONTROL, process(evidence(TRUE), version="")).code == "version_unknown"
        verdict = judge(CONTROL, process(evidence(FALSE), version=""))
        assert said(verdict) == (Status.FAIL, "wrong", False)
        log = {"makeIPTablesUtilChains": "true"}
        assert judge(CONTROL, replace(process(evidence(), version=""), log=log)).status is Status.PASS


class TestHealth:
    @pytest.mark.parametrize("state", ["T", "t", "D", "F", "Z", "X"])
    def test_a_process_that_does_nothing(self, state: str) -> None:
        for seen in (evidence(), evidence(FALSE)):
            verdict = judge(CONTROL, process(seen, state=state))
            assert said(verdict) == (Status.ERROR, "not_answering", None)
            assert not verdict.restart_pending

    @pytest.mark.parametrize(
        ("settings", "health", "passes"),
        [
            ({}, ("127.0.0.1", 10248, "ok"), True),
            ({}, ("127.0.0.1", 10248, ""), False),
            ({}, ("127.0.0.1", 10248, "not ok"), False),
            ({}, ("127.0.0.1", 9999, "ok"), False),
            ({}, ("127.0.0.2", 10248, "ok"), False),
            ({"healthzPort": 9999}, ("127.0.0.1", 9999, "ok"), True),
            ({"healthzPort": 9999}, ("127.0.0.1", 10248, "ok"), False),
            ({"healthzBindAddress": "0.0.0.0"}, ("127.0.0.1", 10248, "ok"), True),
            ({"healthzBindAddress": "::"}, ("::1", 10248, "ok"), True),
            ({"healthzBindAddress": "10.0.0.4"}, ("10.0.0.4", 10248, "ok"), True),
            ({"healthzBindAddress": "10.0.0.4"}, ("127.0.0.1", 10248, "ok"), False),
            ({"healthzBindAddress": "0:0::1"}, ("[::1]", 10248, "ok"), True),
        ],
    )
    def test_it_is_asked_where_the_configuration_puts_it(
        self, settings: Mapping[str, Any], health: tuple[str, int, str], passes: bool
    ) -> None:
        seen = replace(evidence(config_text=config(**settings)), health=(Health(*health),))
        verdict = judge(CONTROL, seen)
        assert (verdict.status is Status.PASS) is passes, verdict
        assert passes or verdict.code == "not_answering"

    def test_where_it_is_off_the_state_and_the_unit_decide(self) -> None:
        seen = replace(evidence("--healthz-port=0"), health=())
        verdict = judge(CONTROL, seen)
        assert (verdict.status, "healthz is off" in verdict.reason) == (Status.PASS, True)
        assert judge(CONTROL, replace(seen, active_state="deactivating")).code == "not_answering"
        assert judge(CONTROL, process(seen, state="T")).code == "not_answering"

    def test_where_the_files_are_not_proved_any_answer_counts(self) -> None:
        """Where healthz is, is then no better known than the rest."""
        seen = touched(evidence(TRUE, config(healthzPort=9999)), CONFIG)
        assert judge(CONTROL, seen).status is Status.PASS
        assert judge(CONTROL, replace(seen, health=())).code == "not_answering"


class TestRestart:
    """What a restart would run: told where it is known, and never guessed."""

    def test_a_flag_waits_for_a_restart(self) -> None:
        """The environment file was corrected; the process runs as it was started, which its arguments prove."""
        verdict = judge(CONTROL, edited(evidence(FALSE), ENVIRONMENT, f"KUBELET_FLAGS={TRUE}\n"))
        assert said(verdict) == (Status.FAIL, "restart_pending", False)
        assert verdict.restart_pending
        assert verdict.hint == "Restart the kubelet: systemctl restart kubelet"

    def test_a_unit_waits_for_daemon_reload_and_restart(self) -> None:
        before = replace(evidence(FALSE), needs_daemon_reload=True)
        verdict = judge(CONTROL, edited(before, UNIT, AKS_UNIT.replace("$KUBELET_FLAGS", TRUE)))
        assert verdict.code == "restart_pending"
        assert "systemctl daemon-reload && systemctl restart kubelet" in verdict.hint

    def test_right_now_but_wrong_after_a_restart_is_no_pass(self) -> None:
        verdict = judge(CONTROL, edited(evidence(TRUE), ENVIRONMENT, f"KUBELET_FLAGS={FALSE}\n"))
        assert said(verdict) == (Status.FAIL, "wrong_after_restart", True)
        assert verdict.restart_pending

    def test_a_clock_set_back_makes_no_pending_restart(self) -> None:
        """Sixty seconds back: what was written before the start looks as if it came after."""
        seen = evidence(TRUE)
        late = touched(edited(seen, ENVIRONMENT, f"KUBELET_FLAGS={FALSE}\n"), ENVIRONMENT, STARTED + 30 * SECOND)
        verdict = judge(CONTROL, replace(late, collected=late.collected - 60 * SECOND))
        assert verdict.status is Status.PASS
        assert "what a restart would run is not known" in verdict.reason
        assert not verdict.restart_pending

    @pytest.mark.parametrize(
        ("exec_start", "running"),
        [
            ("/opt/bin/start-kubelet.sh", KUBELET.split()),
            ("/opt/bin/start-kubelet.sh", [*KUBELET.split(), FALSE]),
            (f"/usr/bin/nice -n -5 {KUBELET}", KUBELET.split()),
            (f"/usr/bin/env A=1 {KUBELET}", KUBELET.split()),
            (f"/usr/bin/taskset 1 {KUBELET}", [*KUBELET.split(), FALSE]),
            (f"/bin/sh -c 'exec {KUBELET}'", KUBELET.split()),
            (KUBELET, [*KUBELET.split(), TRUE]),
            (KUBELET, [*KUBELET.split(), FALSE]),
        ],
    )
    def test_wrappers_and_generators(self, exec_start: str, running: list[str]) -> None:
        """The verdict is the running value, whatever the unit's own words would come to."""
        verdict = judge(CONTROL, evidence(unit=unit(exec_start=exec_start), argv=running))
        assert verdict.status is (Status.FAIL if FALSE in running else Status.PASS)
        assert "what a restart would run is not known" in verdict.reason
        assert not verdict.restart_pending
        for words in ("what is on disk is right", "a restart is pending", "would refuse to start"):
            assert words not in verdict.reason + verdict.hint
        assert "kubelet-guard plan" not in verdict.hint

    @pytest.mark.parametrize("name", ["kubelet", "kubelet-1.33.5", "kubelet-v1.34.0-beta.1", "hyperkube"])
    def test_names_of_kubelets(self, name: str) -> None:
        exec_start = f"/opt/bin/{name} --config={CONFIG}"
        seen = evidence(unit=unit(exec_start=exec_start))
        assert judge(CONTROL, process(seen, executable=f"/opt/bin/{name}")).reason == (
            "makeIPTablesUtilChains is true (default)"
        )

    @pytest.mark.parametrize("name", ["kubelet.real", "kubelet-bin", "kubelet-1.34.2"])
    def test_another_program_than_the_unit_s_runs(self, name: str) -> None:
        """A script around it, or an upgrade that waits: whatever a restart runs, it is not what was looked at."""
        changed = replace(evidence(argv=[f"/opt/bin/{name}", FALSE]), needs_daemon_reload=True)
        verdict = judge(CONTROL, changed)
        assert said(verdict) == (Status.FAIL, "wrong", False)
        assert f"the unit starts /opt/bin/kubelet, and /opt/bin/{name} runs" in verdict.reason

    def test_the_manager_s_environment(self) -> None:
        words = unit(exec_start=f"{KUBELET} $KUBELET_FLAGS")
        seen = evidence(unit=words, argv=[*KUBELET.split(), TRUE], config_text=config(makeIPTablesUtilChains=False))
        known = judge(CONTROL, replace(seen, manager_environment={"KUBELET_FLAGS": TRUE}))
        assert said(known) == (Status.PASS, "right", True)
        assert "not known" not in known.reason
        assert "not known" in judge(CONTROL, seen).reason

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"refuses_manual": True}, "refuses to be restarted by hand"),
            ({"conditions": (Condition("ConditionPathExists=/x", holds=False),)}, "does not hold now"),
            ({"conditions": (Condition("AssertPathExists=/x", holds=None),)}, "holds is not known"),
            ({"conditions": (Condition("ConditionPathExists=|/x", holds=False),)}, "does not hold now"),
        ],
    )
    @pytest.mark.parametrize("flag", [TRUE, FALSE])
    def test_a_restart_that_would_not_bring_it_back(self, changes: Mapping[str, Any], says: str, flag: str) -> None:
        verdict = judge(CONTROL, replace(evidence(flag), **changes))
        assert verdict.status is (Status.PASS if flag == TRUE else Status.FAIL)
        assert says in verdict.reason
        assert not verdict.restart_pending

    def test_conditions_that_hold(self) -> None:
        held = (
            Condition("ConditionPathExists=/etc", holds=True),
            Condition("ConditionPathExists=|/x", holds=False),
            Condition("ConditionPathExists=|/y", holds=True),
        )
        assert "known" not in judge(CONTROL, replace(evidence(), conditions=held)).reason

    @pytest.mark.parametrize(
        "line", ["ExecCondition=/bin/true", "User=kube", "RootDirectory=/opt/root", "RootImage=/opt/root.raw"]
    )
    def test_units_that_are_not_followed(self, line: str) -> None:
        seen = evidence(unit=unit(line))
        if line.startswith("Root"):  # then its files are not the host's
            seen = replace(seen, files={**seen.files, CONFIG: replace(seen.files[CONFIG], hosted=False)})
        verdict = judge(CONTROL, seen)
        assert (verdict.status, "what a restart would run is not known" in verdict.reason) == (Status.PASS, True)

    def test_conditions_that_nobody_looked_at(self) -> None:
        seen = evidence(unit="[Unit]\nConditionPathExists=/x\n" + unit())
        assert "not known" in judge(CONTROL, seen).reason

    def test_conditions_beyond_those_that_were_looked_at(self) -> None:
        seen = evidence(unit="[Unit]\nConditionPathExists=/etc\nConditionPathExists=/x\n" + unit())
        told = replace(seen, conditions=(Condition("ConditionPathExists=/etc", holds=True),))
        assert "whether ConditionPathExists=/x holds is not known" in judge(CONTROL, told).reason

    def test_an_executable_that_was_replaced(self) -> None:
        verdict = judge(CONTROL, process(evidence(), executable="/opt/bin/kubelet (deleted)"))
        assert (verdict.status, "was replaced" in verdict.reason) == (Status.PASS, True)

    def test_another_working_directory(self) -> None:
        words = unit("WorkingDirectory=/etc/default", exec_start="/opt/bin/kubelet --config=kubeletconfig.json")
        same = evidence(unit=words, directory="/etc/default", config_text=config(makeIPTablesUtilChains=False))
        assert said(judge(CONTROL, same)) == (Status.FAIL, "wrong", False)
        other = replace(
            same, files={**same.files, "/srv/kubeletconfig.json": file("/srv/kubeletconfig.json", config())}
        )
        other = replace(other, directories={**other.directories, "/srv": BEFORE})
        verdict = judge(CONTROL, process(other, directory="/srv"))
        assert (verdict.status, "and runs in /srv" in verdict.reason) == (Status.PASS, True)

    def test_a_masked_dropin_counts_for_nothing(self) -> None:
        masked = "/etc/systemd/system/kubelet.service.d/90-team.conf"
        seen = replace(evidence(), units=(UNIT, masked), links={masked: Link("/dev/null", BEFORE)})
        verdict = judge(CONTROL, seen)
        assert (verdict.status, verdict.reason) == (Status.PASS, "makeIPTablesUtilChains is true (default)")
        assert "was not collected" in judge(CONTROL, replace(seen, links={})).reason

    def test_an_unknown_unit_leaves_the_running_value_standing(self) -> None:
        words = AKS_UNIT.replace("$KUBELET_FLAGS", "--hostname-override=%b")
        verdict = judge(CONTROL, evidence(unit=words, argv=["/opt/bin/kubelet", "--v=2"]))
        assert (verdict.status, "not known" in verdict.reason) == (Status.PASS, True)

    @pytest.mark.parametrize(
        "seen",
        [
            without(evidence(), ENVIRONMENT, gone=True),
            edited(evidence(), UNIT, AKS_UNIT.replace("ExecStart=", "ExecStart=\nExecStop=")),
            replace(edited(evidence(files={"/etc/d.conf": AKS_UNIT}), UNIT, ""), units=(UNIT, "/etc/d.conf")),  # masked
            edited(evidence(), UNIT, AKS_UNIT.replace("--enable-server", '"--enable-server')),
            replace(
                edited(evidence(), UNIT, AKS_UNIT.replace("kubeletconfig.json", "other.json")),
                gone=frozenset({"/etc/default/other.json"}),
            ),
            edited(evidence(), ENVIRONMENT, "KUBELET_FLAGS=--no-such-flag\n"),
        ],
    )
    def test_what_could_not_be_started_again_is_no_pass(self, seen: Evidence) -> None:
        verdict = judge(CONTROL, seen)
        assert (verdict.status, verdict.code, verdict.restart_pending) == (Status.ERROR, "next_start_refused", True)

    def test_a_unit_that_did_start_it_is_not_said_to_fail(self) -> None:
        seen = evidence(unit=AKS_UNIT.replace("ExecStart=", "ExecStart=\nExecStop="), argv=KUBELET.split())
        verdict = judge(CONTROL, seen)
        assert (verdict.status, "was not changed since" in verdict.reason) == (Status.PASS, True)

    def test_a_client_ca_that_is_gone(self) -> None:
        named = config(authentication={"x509": {"clientCAFile": "/etc/kubernetes/certs/ca.crt"}})
        seen = evidence(config_text=named)
        assert "whether /etc/kubernetes/certs/ca.crt is there is not known" in judge(CONTROL, seen).reason
        there = judge(CONTROL, replace(seen, exists={"/etc/kubernetes/certs/ca.crt": True}))
        assert said(there) == (Status.PASS, "right", True)
        assert "not known" not in there.reason
        gone = judge(CONTROL, replace(seen, exists={"/etc/kubernetes/certs/ca.crt": False}))
        assert said(gone) == (Status.ERROR, "next_start_refused", True)

    def test_an_optional_environment_file_that_never_was(self) -> None:
        """It is no change: other arguments than the unit's are still a generator's or a wrapper's."""
        words = AKS_UNIT.replace("ExecStart=", "EnvironmentFile=-/etc/default/extra\nExecStart=")
        seen = replace(evidence(unit=words), gone=frozenset({"/etc/default/extra"}))
        assert "not known" not in judge(CONTROL, seen).reason
        odd = process(seen, argv=(*of_process(seen).argv, FALSE))
        assert said(judge(CONTROL, odd)) == (Status.FAIL, "wrong", False)
        assert "not known" in judge(CONTROL, odd).reason

    def test_an_environment_file_that_was_not_collected_is_not_taken_for_absent(self) -> None:
        words = AKS_UNIT.replace("ExecStart=", "EnvironmentFile=-/etc/default/extra\nExecStart=")
        verdict = judge(CONTROL, edited(evidence(), UNIT, words))
        assert (verdict.status, "/etc/default/extra was not collected" in verdict.reason) == (Status.PASS, True)
        there = edited(edited(evidence(), UNIT, words), "/etc/default/extra", f"KUBELET_FLAGS={FALSE}\n")
        assert judge(CONTROL, there).status is Status.FAIL


class TestMasked:
    @pytest.mark.parametrize(
        "flag", ["--node-labels=a=**", "--node_labels=a=**", "--node-labels a=**", "--node_labels a=*"]
    )
    def test_labels_in_every_spelling(self, flag: str) -> None:
        assert judge(CONTROL, evidence(flag)).status is Status.PASS

    def test_label_values_do_not_matter(self) -> None:
        argv = ["/opt/bin/kubelet", "--node-labels=agentpool=****,team=*"]
        words = "[Service]\nEnvironmentFile=/etc/default/kubelet\nExecStart=/opt/bin/kubelet --node-labels=${LABELS}\n"
        environment = {ENVIRONMENT: "LABELS=agentpool=****,team=*\nKUBELET_FLAGS=\n"}
        verdict = judge(CONTROL, evidence(unit=words, files=environment, argv=argv))
        assert (verdict.status, "not known" in verdict.reason) == (Status.PASS, False)

    def test_quoting_that_is_masked_differently(self) -> None:
        argv = ["/opt/bin/kubelet", "--node-labels=team=***"]
        words = "[Service]\nEnvironmentFile=/etc/default/kubelet\nExecStart=/opt/bin/kubelet --node-labels=${LABELS}\n"
        seen = evidence(unit=words, files={ENVIRONMENT: 'LABELS="team=****"\n'}, argv=argv)
        assert "not known" not in judge(CONTROL, seen).reason


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (replace(evidence(), process=None, sub_state="auto-restart"), "kubelet_not_running"),
        (replace(evidence(), process=None, load_state="not-found", units=()), "no_kubelet"),
        (process(evidence(), argv=("/bin/sh", "/start-kubelet.sh"), executable="/bin/dash"), "not_a_kubelet"),
        (replace(evidence(), overflow=True), "too_large"),
        (replace(evidence(), missing_tools=("curl",)), "missing_tool"),
        (replace(evidence(), unfinished="replace 20261127T1"), "unfinished_fix"),
        (replace(evidence(FALSE), unfinished="replace 20261127T1"), "unfinished_fix"),
        (without(evidence(), CONFIG), "config_unreadable"),
        (replace(evidence("--config-dir=/etc/k.d"), listings={}), "listing_unknown"),
        (
            replace(evidence(), files={**evidence().files, CONFIG: replace(evidence().files[CONFIG], whole=False)}),
            "config_unreadable",
        ),
        (edited(evidence(), CONFIG, config(makeIPTablesUtilChains="yes")), "config_refused"),
        (evidence("--flag-of-the-future=1"), "not_understood"),
    ],
)
def test_what_cannot_be_determined(seen: Evidence, code: str) -> None:
    verdict = judge(CONTROL, seen)
    assert said(verdict) == (Status.ERROR, code, None)
    assert verdict.reason
    assert verdict.hint
    assert verdict.code in set(Code)
    assert not verdict.restart_pending


def test_a_crash_loop_says_why() -> None:
    seen = replace(evidence(config_text=config(makeIPTablesUtilChains="yes")), process=None)
    assert "refuses to start" in judge(CONTROL, seen, "1.36.3").reason


def test_the_process_of_the_builder_is_a_kubelet() -> None:
    assert of_process(evidence()).argv[0] == "/opt/bin/kubelet"

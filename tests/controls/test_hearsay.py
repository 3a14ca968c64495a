"""What a kubelet told its cluster, judged alone and beside what the node shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.controls import Code, builtin, control, judge_all, judge_told, of_process, read
from shared.models import Status, Told
from tests.support.evidence import CONFIG, config, edited, evidence
from tests.support.evidence import of_process as process_of

IPTABLES = control("3.2.6")
SETTING = "makeIPTablesUtilChains"
NOW = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)


def told(values: Mapping[str, str] | None = None, version: str = "v1.36.3", asked: datetime = NOW) -> Told:
    boot = process_of(evidence()).boot_id
    return Told("/subscriptions/s/x", "aks-1", asked, version=version, boot_id=boot, ready=True, values=values or {})


class TestAlone:
    def test_the_running_value_is_certain_and_the_disk_is_not_seen(self) -> None:
        right = judge_told(IPTABLES, told({SETTING: "true"}), None)
        wrong = judge_told(IPTABLES, told({SETTING: "false"}), None)
        assert (right.status, right.actual, right.witness) == (Status.PASS, True, "configz")
        assert (wrong.status, wrong.actual, wrong.code) == (Status.FAIL, False, Code.WRONG)
        assert "was not looked at" in right.reason
        assert "must be true" in wrong.reason

    @pytest.mark.parametrize(
        ("control_id", "values", "status"),
        [
            ("3.2.1", {}, Status.PASS),
            ("3.2.1", {"authentication.anonymous.enabled": "true"}, Status.FAIL),
            ("3.2.1", {"authentication.anonymous.enabled": "false"}, Status.PASS),
            ("3.2.2", {"authorization.mode": '"AlwaysAllow"'}, Status.FAIL),
            ("3.2.2", {"authorization.mode": '"Webhook"'}, Status.PASS),
            ("3.2.3", {}, Status.FAIL),
            ("3.2.3", {"authentication.x509.clientCAFile": '"/etc/kubernetes/certs/ca.crt"'}, Status.PASS),
            ("3.2.4", {}, Status.PASS),
            ("3.2.4", {"readOnlyPort": "10255"}, Status.FAIL),
            ("3.2.5", {"streamingConnectionIdleTimeout": '"0s"'}, Status.FAIL),
            ("3.2.5", {"streamingConnectionIdleTimeout": '"4h0m0s"'}, Status.PASS),
            ("3.2.7", {"eventRecordQPS": "1"}, Status.FAIL),
            ("3.2.7", {"eventRecordQPS": "0"}, Status.PASS),
            ("3.2.8", {}, Status.FAIL),
            ("3.2.8", {"rotateCertificates": "true"}, Status.PASS),
            ("3.2.9", {}, Status.PASS),
            ("3.2.9", {"featureGates.AllBeta": "false"}, Status.FAIL),
            ("3.2.9", {"featureGates.RotateKubeletServerCertificate": "false"}, Status.FAIL),
        ],
    )
    def test_what_is_left_out_has_go_s_zero_value_and_a_gate_its_default(
        self, control_id: str, values: dict[str, str], status: Status
    ) -> None:
        assert judge_told(control(control_id), told(values), None).status is status

    def test_only_the_node_shows_its_files(self) -> None:
        for entry in builtin().controls.values():
            if entry.file is not None:
                verdict = judge_told(entry, told(), None, "the node is locked")
                assert (verdict.status, verdict.code) == (Status.ERROR, Code.NEEDS_NODE)
                assert verdict.reason.endswith(": the node is locked")

    @pytest.mark.parametrize("value", ['"yes"', "{}", "[1]", "null", '"\\u001b[31m"', "1"])
    def test_what_is_no_value_of_the_setting_is_an_error(self, value: str) -> None:
        verdict = judge_told(IPTABLES, told({SETTING: value}), None)
        assert (verdict.status, verdict.code) == (Status.ERROR, Code.NOT_UNDERSTOOD)

    def test_a_gate_of_a_version_without_rules_is_not_guessed(self) -> None:
        gate = control("3.2.9")
        assert judge_told(gate, told(version="v1.99.0"), None).code == Code.VERSION_UNKNOWN
        known = told({"featureGates.RotateKubeletServerCertificate": "true"}, "v1.99.0")
        assert judge_told(gate, known, None).status is Status.PASS


class TestBeside:
    def test_it_proves_what_files_alone_cannot(self) -> None:
        seen = edited(evidence(config_text=config(makeIPTablesUtilChains=True)), CONFIG, config())
        alone = judge_all([IPTABLES], seen)["3.2.6"]
        both = judge_all([IPTABLES], seen, configz={SETTING: "true"})["3.2.6"]
        assert alone.code == Code.UNPROVED
        assert (both.status, both.witness) == (Status.PASS, "node+configz")

    def test_it_decides_the_running_value_and_files_what_a_restart_gives(self) -> None:
        seen = edited(evidence(), CONFIG, config(makeIPTablesUtilChains=True))
        verdict = judge_all([IPTABLES], seen, configz={SETTING: "false"})["3.2.6"]
        assert (verdict.status, verdict.code) == (Status.FAIL, Code.RESTART_PENDING)

    def test_two_words_of_one_process_must_agree(self) -> None:
        seen = replace(evidence(), log={SETTING: "true"})
        verdict = judge_all([IPTABLES], seen, configz={SETTING: "false"})["3.2.6"]
        assert (verdict.status, verdict.code) == (Status.ERROR, Code.WITNESSES_DISAGREE)
        assert "false (configz), true (the kubelet's own log)" in verdict.reason
        agreed = judge_all([IPTABLES], seen, configz={SETTING: "true"})["3.2.6"]
        assert agreed.status is Status.PASS
        assert agreed.source.endswith("configz and the kubelet's own log agree")

    def test_the_log_does_not_know_yet_what_certificate_a_kubelet_makes_itself(self) -> None:
        certificate = read(CERTIFICATE, "mine.yaml", builtin()).controls["X.1"]
        made = '"/var/lib/kubelet/pki/kubelet.crt"'
        seen = replace(evidence(), log={SETTING: "true"})
        both = judge_all([certificate], seen, configz={"tlsCertFile": made})["X.1"]
        assert both.status is Status.PASS, both.reason
        assert judge_all([certificate], seen)["X.1"].code != Code.WRONG
        given = replace(seen, log={"tlsCertFile": '"/other.crt"'})
        assert judge_all([certificate], given, configz={"tlsCertFile": made})["X.1"].code == Code.WITNESSES_DISAGREE

    def test_what_the_process_was_given_for_certain_must_agree_too(self) -> None:
        flag = "--make-iptables-util-chains=false"
        for seen in (evidence(f"--v=2 {flag}"), evidence(config_text=config(makeIPTablesUtilChains=False))):
            verdict = judge_all([IPTABLES], seen, configz={SETTING: "true"})["3.2.6"]
            assert (verdict.status, verdict.code) == (Status.ERROR, Code.WITNESSES_DISAGREE)
            assert "true (configz), false (" in verdict.reason


CERTIFICATE = """
controls:
  - id: X.1
    title: Ensure that the kubelet does not use the old certificate
    severity: low
    setting: tlsCertFile
    flag: --tls-cert-file
    rule: {none_of: ["", /old.crt]}
    by_hand: Give it another certificate.
    rationale: none
    fix: none
"""


class TestOneProcess:
    def test_it_was_there_when_the_cluster_was_asked(self) -> None:
        seen = evidence()  # its kubelet has run for an hour
        assert of_process(told(asked=NOW - timedelta(minutes=59)), seen, NOW)
        assert not of_process(told(asked=NOW - timedelta(minutes=61)), seen, NOW)

    def test_another_boot_or_an_unknown_start_is_another_process(self) -> None:
        recent = told(asked=NOW - timedelta(minutes=1))
        assert not of_process(replace(recent, boot_id="other"), evidence(), NOW)
        assert not of_process(recent, replace(evidence(), uptime=0), NOW)
        assert not of_process(recent, replace(evidence(), process=None), NOW)

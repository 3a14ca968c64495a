"""The catalogue of node states, as data: what a node of the sandbox holds, and how the far side behaves towards it.

A state is a `Kubelet` (what is on the node's disk and what its kubelet runs with) and a `Command` (what Azure's run
command does for this node). `expected` is the truth about control 3.2.6 that an honest audit must reach, known because
the sandbox made the node: `pass` or `fail` where the running kubelet is known, `pending` where disk and process differ,
`unknown` where nothing can be learnt from the node, and `skipped` where it is not running.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

FALSE_FLAG = "--make-iptables-util-chains=false"
TRUE_FLAG = "--make-iptables-util-chains=true"
CHAINS = "3.2.6"
"""The control that most states are about."""

KUBECONFIG = "/var/lib/kubelet/kubeconfig"
AZURE_JSON = "/etc/kubernetes/azure.json"
CLIENT_CA = "/etc/kubernetes/certs/ca.crt"

Expected = Literal["pass", "fail", "pending", "unknown", "not_applicable", "skipped"]


class Command(StrEnum):
    """How run command behaves for a node. The comments name what is public about each."""

    WORKS = "works"
    DEAD_AGENT = "dead_agent"  # accepted, then the operation fails with VMAgentStatusCommunicationError
    VANISHED = "vanished"  # still listed, gone (404) when asked for
    VANISHED_INACTIVE = "vanished_inactive"  # the same, in Compute's other form: 400 InvalidParameter
    FORBIDDEN = "forbidden"  # 403 AuthorizationFailed for the run command action alone
    BUSY = "busy"  # somebody else's command runs for `busy_seconds` from the first attempt on
    BUSY_STUCK = "busy_stuck"  # busy with nothing running, until RemoveRunCommandLinuxExtension is run
    HANG = "hang"  # the script runs, the result never comes (the node's outbound 443 is blocked)
    NO_OUTPUT = "no_output"  # the script runs, both streams come back empty
    DID_NOT_FINISH = "did_not_finish"  # the script runs, its output is lost: "Last script execution didn't finish."
    EXTENSION_FAILED = "extension_failed"  # accepted, then the operation fails with VMExtensionProvisioningError
    EMPTY_RESULT = "empty_result"  # succeeded without any value
    TRUNCATED = "truncated"  # the last 100 bytes of stdout are missing
    GARBLED = "garbled"  # noise before the output, one character of it changed
    HOSTILE = "hostile"  # a huge message with forged frames, control characters and false stream markers
    SLOW = "slow"  # takes `slow_seconds` longer


class Quirk(StrEnum):
    """What goes wrong on the node when its kubelet is restarted."""

    NONE = "none"
    UNHEALTHY_WHEN_TRUE = "unhealthy_when_true"  # starts, but healthz answers 500 while the setting is true
    DIES_WHEN_TRUE = "dies_when_true"  # starts healthy, exits 4 s later and keeps crashing while the setting is true
    START_FAILS = "start_fails"  # an ExecStartPre= step fails before the kubelet's command line is read


@dataclass(frozen=True, slots=True)
class Kubelet:
    """What is on the node. Flags, file and drop-ins are written before the kubelet starts, `then_*` after it."""

    flags: tuple[str, ...] = ()  # appended to KUBELET_FLAGS in /etc/default/kubelet
    config: Literal["none", "json", "yaml"] = "none"  # AKS's kubeletconfig.json, or a team's YAML file
    chains: bool | str | None = None  # makeIPTablesUtilChains in that file; None: the key is absent
    dropin_chains: bool | None = None  # the same in a drop-in of --config-dir; None: no such directory
    quoted: bool = False  # KUBELET_FLAGS="…", continued over lines with a backslash
    unit_flags: tuple[str, ...] = ()  # at the end of the unit's own ExecStart
    systemd_flags: tuple[str, ...] = ()  # in a systemd drop-in's Environment= line
    labels: tuple[str, ...] = ()  # further KUBELET_NODE_LABELS
    without: tuple[str, ...] = ()  # flags that AKS gives and this node has not
    settings: Mapping[str, bool | int | str | None] = field(default_factory=dict)  # as `chains`: others, by their paths
    modes: Mapping[str, int] = field(default_factory=dict)  # of files, where they are not AKS's
    owners: Mapping[str, str] = field(default_factory=dict)  # USER:GROUP in numbers of files that are not root's
    installed: bool = True
    seed_layout: bool = False  # the paths of another distribution: kubelet-config.json and 10-kubelet-args.conf
    then_chains: bool | None = None  # the config file is rewritten with this after the start
    then_flags: tuple[str, ...] = ()  # KUBELET_FLAGS is rewritten with these in the place of `flags` after the start
    then_systemd_flags: tuple[str, ...] = ()  # a systemd drop-in is added after the start, without daemon-reload
    then_gone: tuple[str, ...] = ()  # files that are taken away after the start
    hostile: bool = False  # contents that attack whoever reads or displays them
    padding: int = 0  # this many characters of comments that do not compress, in /etc/default/kubelet
    quirk: Quirk = Quirk.NONE


@dataclass(frozen=True, slots=True)
class State:
    """One entry of the catalogue. `power` is the instance view's code without its prefix.

    `expected` is of 3.2.6. Every other control passes where this node can be looked at, but for those in `others`.
    """

    description: str
    expected: Expected
    kubelet: Kubelet = field(default_factory=Kubelet)
    command: Command = Command.WORKS
    power: Literal["running", "stopped", "deallocated"] = "running"
    others: Mapping[str, Expected] = field(default_factory=dict)

    def expects(self, control: str) -> Expected:
        """The truth about a control."""
        if control in self.others:
            return self.others[control]
        return self.expected if control == CHAINS or self.expected in ("unknown", "skipped") else "pass"


_ROOT_FILES: Mapping[str, Expected] = {"3.1.3": "pass", "3.1.4": "pass"}
_ALL_FILES: Mapping[str, Expected] = {"3.1.1": "pass", "3.1.2": "pass", **_ROOT_FILES}


def _failing(*controls: str, description: str, **kubelet: Any) -> State:
    return State(description, "pass", Kubelet(**kubelet), others=dict.fromkeys(controls, "fail"))


STATES: dict[str, State] = {
    # Compliant.
    "compliant_default": State("every setting is a flag, this one is nowhere: the default, true, holds", "pass"),
    "compliant_flag": State(f"{TRUE_FLAG} in /etc/default/kubelet", "pass", Kubelet(flags=(TRUE_FLAG,))),
    "compliant_file": State("true in kubeletconfig.json", "pass", Kubelet(config="json", chains=True)),
    "compliant_file_default": State("kubeletconfig.json without the key", "pass", Kubelet(config="json")),
    "overridden": State(
        "false in kubeletconfig.json, but a flag says true, and a flag wins",
        "pass",
        Kubelet(flags=(TRUE_FLAG,), config="json", chains=False),
    ),
    "overridden_dropin": State(
        "false in kubeletconfig.json, but a drop-in of --config-dir says true",
        "pass",
        Kubelet(config="json", chains=False, dropin_chains=True),
    ),
    "gpu": State(
        "a GPU node, compliant by default; its labels say what it is",
        "pass",
        Kubelet(labels=("accelerator=nvidia", "kubernetes.azure.com/accelerator=nvidia")),
    ),
    "large": State(
        "compliant by default, with 24,000 incompressible characters of comments to fetch",
        "pass",
        Kubelet(padding=24_000),
    ),
    # Not compliant.
    "false_file": State("false in kubeletconfig.json", "fail", Kubelet(config="json", chains=False)),
    "false_flag": State(f"{FALSE_FLAG} in /etc/default/kubelet", "fail", Kubelet(flags=(FALSE_FLAG,))),
    "false_dropin": State(
        "true in kubeletconfig.json, false in a drop-in of --config-dir",
        "fail",
        Kubelet(config="json", chains=True, dropin_chains=False),
    ),
    "false_both": State(
        "false in kubeletconfig.json and by flag: both must be corrected",
        "fail",
        Kubelet(flags=(FALSE_FLAG,), config="json", chains=False),
    ),
    "false_flag_twice": State(
        "the flag twice, true and then false: the last one wins", "fail", Kubelet(flags=(TRUE_FLAG, FALSE_FLAG))
    ),
    "false_envfile_quoted": State(
        "false by flag, in an environment file with quotes and continued lines",
        "fail",
        Kubelet(flags=(FALSE_FLAG,), quoted=True),
    ),
    "false_unit": State("false at the end of the unit's own ExecStart", "fail", Kubelet(unit_flags=(FALSE_FLAG,))),
    "false_systemd_dropin": State(
        "false in the Environment= of a systemd drop-in", "fail", Kubelet(systemd_flags=(FALSE_FLAG,))
    ),
    "yaml_config": State(
        "false in a YAML config file with comments, named by a systemd drop-in",
        "fail",
        Kubelet(config="yaml", chains=False),
    ),
    "seed_layout": State(
        "false in /etc/kubernetes/kubelet/kubelet-config.json, the layout that the benchmark's text assumes",
        "fail",
        Kubelet(config="json", chains=False, seed_layout=True),
    ),
    # Compliant with 3.2.6, and not with another control.
    "kubeconfig_open": _failing(
        "3.1.1", description="the kubelet's kubeconfig file has the mode 666", modes={KUBECONFIG: 0o666}
    ),
    "kubeconfig_owner": _failing(
        "3.1.2", description="the kubelet's kubeconfig file belongs to a user", owners={KUBECONFIG: "1000:1000"}
    ),
    "azure_json_open": _failing("3.1.3", description="azure.json has the mode 666", modes={AZURE_JSON: 0o666}),
    "azure_json_owner": _failing("3.1.4", description="azure.json belongs to a user", owners={AZURE_JSON: "1000:0"}),
    "anonymous_flag": _failing("3.2.1", description="--anonymous-auth=true by flag", flags=("--anonymous-auth=true",)),
    "anonymous_file": _failing(
        "3.2.1",
        description="anonymous authentication is on in kubeletconfig.json",
        config="json",
        settings={"authentication.anonymous.enabled": True},
    ),
    "always_allow_flag": _failing(
        "3.2.2", description="--authorization-mode=AlwaysAllow by flag", flags=("--authorization-mode=AlwaysAllow",)
    ),
    "always_allow_file": _failing(
        "3.2.2",
        description="authorization is AlwaysAllow in kubeletconfig.json",
        config="json",
        settings={"authorization.mode": "AlwaysAllow"},
    ),
    "no_client_ca_flag": _failing("3.2.3", description="--client-ca-file is missing", without=("--client-ca-file",)),
    "no_client_ca_file": _failing(
        "3.2.3",
        description="clientCAFile is missing in kubeletconfig.json",
        config="json",
        settings={"authentication.x509.clientCAFile": None},
    ),
    "client_ca_gone": State(
        "the client CA file was taken away after the start: a kubelet would not start any more",
        "unknown",
        Kubelet(then_gone=(CLIENT_CA,)),
        others={**_ALL_FILES, "3.2.3": "fail"},
    ),
    "read_only_port_flag": _failing(
        "3.2.4", description="--read-only-port=10255 by flag", flags=("--read-only-port=10255",)
    ),
    "read_only_port_file": _failing(
        "3.2.4",
        description="readOnlyPort is 10255 in kubeletconfig.json",
        config="json",
        settings={"readOnlyPort": 10255},
    ),
    "idle_timeout_flag": _failing(
        "3.2.5",
        description="--streaming-connection-idle-timeout=0 by flag",
        flags=("--streaming-connection-idle-timeout=0",),
    ),
    "idle_timeout_file": State(
        "streamingConnectionIdleTimeout is 0 in kubeletconfig.json, which a kubelet takes for its default, 4 hours",
        "pass",
        Kubelet(config="json", settings={"streamingConnectionIdleTimeout": "0s"}),
    ),
    "event_qps_flag": _failing("3.2.7", description="--event-qps=1 by flag", flags=("--event-qps=1",)),
    "event_qps_file": _failing(
        "3.2.7", description="eventRecordQPS is 2 in kubeletconfig.json", config="json", settings={"eventRecordQPS": 2}
    ),
    "rotation_off_flag": _failing(
        "3.2.8", description="--rotate-certificates=false by flag", flags=("--rotate-certificates=false",)
    ),
    "rotation_off_file": _failing(
        "3.2.8",
        description="rotateCertificates is missing in kubeletconfig.json: the kubelet's own default is false",
        config="json",
        settings={"rotateCertificates": None},
    ),
    "gate_off_flag": _failing(
        "3.2.9",
        description="the gate RotateKubeletServerCertificate is off by flag, and with it serverTLSBootstrap",
        flags=("--rotate-server-certificates=false", "--feature-gates=RotateKubeletServerCertificate=false"),
    ),
    "gate_off_file": _failing(
        "3.2.9",
        description="the gate RotateKubeletServerCertificate is off in kubeletconfig.json",
        config="json",
        settings={"featureGates.RotateKubeletServerCertificate": False, "serverTLSBootstrap": False},
    ),
    "bare_flags": _failing(
        "3.2.1",
        "3.2.2",
        "3.2.3",
        "3.2.4",
        "3.2.8",
        description="no config file and none of the flags: the defaults of long ago hold",
        without=(
            "--anonymous-auth",
            "--authorization-mode",
            "--client-ca-file",
            "--event-qps",
            "--feature-gates",
            "--read-only-port",
            "--rotate-certificates",
            "--streaming-connection-idle-timeout",
        ),
    ),
    "neglected": State(
        "fails six controls: in kubeletconfig.json, by flag and by the modes of files",
        "fail",
        Kubelet(
            config="json",
            chains=False,
            flags=("--read-only-port=10255",),
            settings={"authentication.anonymous.enabled": True, "eventRecordQPS": 1},
            modes={KUBECONFIG: 0o666, AZURE_JSON: 0o646},
        ),
        others=dict.fromkeys(("3.1.1", "3.1.3", "3.2.1", "3.2.4", "3.2.7"), "fail"),
    ),
    # Disk and process differ.
    "restart_pending_fixed": State(
        "started with false by flag; the environment file was corrected afterwards",
        "pending",
        Kubelet(flags=(FALSE_FLAG,), then_flags=(TRUE_FLAG,)),
    ),
    "restart_pending_broken": State(
        "started with true by flag; the environment file was made false afterwards",
        "pending",
        Kubelet(flags=(TRUE_FLAG,), then_flags=(FALSE_FLAG,)),
    ),
    "changed_since_start": State(
        "started with true; the config file was made false afterwards, so that nobody can tell what is running",
        "unknown",
        Kubelet(config="json", chains=True, then_chains=False),
        others=_ALL_FILES,
    ),
    "daemon_reload_pending": State(
        "compliant, but a systemd drop-in that says false waits for daemon-reload and a restart",
        "pending",
        Kubelet(then_systemd_flags=(FALSE_FLAG,)),
    ),
    # Kubelets in trouble, now or when they are restarted.
    "refuses_start": State(
        "the config file has a string where a bool belongs: the kubelet crash-loops",
        "unknown",
        Kubelet(config="json", chains="false"),
        others=_ROOT_FILES,
    ),
    "no_kubelet": State(
        "no unit, no binary: not a Kubernetes node",
        "unknown",
        Kubelet(installed=False),
        others={"3.1.3": "not_applicable", "3.1.4": "not_applicable"},
    ),
    "unhealthy_when_fixed": State(
        "false in the file; corrected, the kubelet starts but never gets healthy: a fix must roll back",
        "fail",
        Kubelet(config="json", chains=False, quirk=Quirk.UNHEALTHY_WHEN_TRUE),
    ),
    "dies_when_fixed": State(
        "false in the file; corrected, the kubelet is healthy for 4 s and then crash-loops: a fix must roll back",
        "fail",
        Kubelet(config="json", chains=False, quirk=Quirk.DIES_WHEN_TRUE),
    ),
    "restart_fails": State(
        "false by flag; a restart fails in ExecStartPre= before the kubelet is reached",
        "fail",
        Kubelet(flags=(FALSE_FLAG,), quirk=Quirk.START_FAILS),
    ),
    "hostile_files": State(
        "false, in files full of shell, terminal, HTML and spreadsheet attacks",
        "fail",
        Kubelet(flags=(FALSE_FLAG,), config="yaml", chains=False, hostile=True),
    ),
    # Not running.
    "deallocated": State("deallocated", "skipped", power="deallocated"),
    "stopped": State("stopped, still allocated", "skipped", power="stopped"),
    # Run command in trouble. The node itself is compliant by default.
    "dead_agent": State("the VM agent does not report", "unknown", command=Command.DEAD_AGENT),
    "vanished": State("listed, but scaled in before it is asked (404)", "unknown", command=Command.VANISHED),
    "vanished_inactive": State(
        "listed, but scaled in before it is asked (400 InvalidParameter)", "unknown", command=Command.VANISHED_INACTIVE
    ),
    "forbidden": State("the identity may not run commands on it (403)", "unknown", command=Command.FORBIDDEN),
    "busy": State("somebody else's run command goes on for a while (409)", "pass", command=Command.BUSY),
    "busy_stuck": State("busy for good, with nothing running (409)", "unknown", command=Command.BUSY_STUCK),
    "hang": State("the script runs, the result never comes", "unknown", command=Command.HANG),
    "no_output": State("the script runs, its output comes back empty", "unknown", command=Command.NO_OUTPUT),
    "did_not_finish": State("a reboot in the middle: no output", "unknown", command=Command.DID_NOT_FINISH),
    "extension_failed": State("the run command extension fails", "unknown", command=Command.EXTENSION_FAILED),
    "empty_result": State("the operation succeeds without a result", "unknown", command=Command.EMPTY_RESULT),
    "truncated": State("the end of the output is missing", "unknown", command=Command.TRUNCATED),
    "garbled": State("noise around the output and a changed character in it", "unknown", command=Command.GARBLED),
    "hostile": State("forged and huge output", "unknown", command=Command.HOSTILE),
    "slow": State("works, but takes longer than usual", "pass", command=Command.SLOW),
}

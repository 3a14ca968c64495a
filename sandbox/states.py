"""The catalogue of node states, as data: what a node of the sandbox holds, and how the far side behaves towards it.

A state is a `Kubelet` (what is on the node's disk and what its kubelet runs with) and a `Command` (what Azure's run
command does for this node). `expected` is the truth about control 3.2.6 that an honest audit must reach, known because
the sandbox made the node: `pass` or `fail` where the running kubelet is known, `pending` where disk and process differ,
`unknown` where nothing can be learnt from the node, and `skipped` where it is not running.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

FALSE_FLAG = "--make-iptables-util-chains=false"
TRUE_FLAG = "--make-iptables-util-chains=true"

Expected = Literal["pass", "fail", "pending", "unknown", "skipped"]


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
    installed: bool = True
    seed_layout: bool = False  # the paths of another distribution: kubelet-config.json and 10-kubelet-args.conf
    then_chains: bool | None = None  # the config file is rewritten with this after the start
    then_flags: tuple[str, ...] = ()  # KUBELET_FLAGS is rewritten with these in the place of `flags` after the start
    then_systemd_flags: tuple[str, ...] = ()  # a systemd drop-in is added after the start, without daemon-reload
    hostile: bool = False  # contents that attack whoever reads or displays them
    padding: int = 0  # this many characters of comments that do not compress, in /etc/default/kubelet
    quirk: Quirk = Quirk.NONE


@dataclass(frozen=True, slots=True)
class State:
    """One entry of the catalogue. `power` is the instance view's code without its prefix."""

    description: str
    expected: Expected
    kubelet: Kubelet = Kubelet()
    command: Command = Command.WORKS
    power: Literal["running", "stopped", "deallocated"] = "running"


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
    ),
    "no_kubelet": State("no unit, no binary: not a Kubernetes node", "unknown", Kubelet(installed=False)),
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

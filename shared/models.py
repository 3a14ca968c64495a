"""The nouns of the product, as immutable values: what is passed between modules, stored and printed.

Times are timezone-aware UTC. Identifiers keep the spelling that Azure returned; comparisons are made on
`Node.key`, which is lower case, because Azure Resource Manager's names are case-insensitive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """One control's verdict on one node. Every node found ends in exactly one (DESIGN, promise 2)."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    ERROR = "error"
    SKIPPED = "skipped"
    NOT_APPLICABLE = "not_applicable"


_WORST_FIRST = (Status.FAIL, Status.ERROR, Status.PASS, Status.SKIPPED, Status.NOT_APPLICABLE)


def worst(statuses: Iterable[Status]) -> Status:
    """What a node comes to of which controls found these: it fails where one fails, and passes where one does and the
    others do not apply. Raises ValueError where there is none."""
    return min(statuses, key=_WORST_FIRST.index)


class Outcome(StrEnum):
    """What a fix did to one node."""

    FIXED = "fixed"
    ALREADY_RIGHT = "already_right"
    CHANGED_MEANWHILE = "changed_meanwhile"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription that the identity can see: its id (a GUID) and display name."""

    id: str
    name: str


_TELLING_FIRST = (
    Outcome.FAILED,
    Outcome.ROLLED_BACK,
    Outcome.CHANGED_MEANWHILE,
    Outcome.FIXED,
    Outcome.ALREADY_RIGHT,
    Outcome.NOT_TRIED,
)


def outcome_of(outcomes: Iterable[Outcome | None]) -> Outcome | None:
    """What a fix did to a node whose findings say these (None where none does): what was not tried for one control was
    for another."""
    return min((each for each in outcomes if each is not None), key=_TELLING_FIRST.index, default=None)


@dataclass(frozen=True, slots=True)
class NodePool:
    """A node pool as the cluster describes it.

    `kind` is the API's `type` (`VirtualMachineScaleSets`, `VirtualMachines`, `AvailabilitySet`), `os` is `Linux` or
    `Windows`, `power` is `Running` or `Stopped`, `count` the number of nodes it is asked to have (None where
    Azure does not say), `mode` is `System`, `User`, `Gateway`, or AKS's own `ManagedSystem` and `Machines`.
    """

    name: str
    kind: str
    os: str
    power: str
    provisioning: str
    kubernetes_version: str | None
    node_image_version: str | None
    count: int | None
    mode: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """An AKS cluster with its node pools. `locked` says that the node resource group is read-only.

    `auto_provisioned`, `virtual_nodes` and `hosted_system` name nodes outside the pools: single VMs of node
    auto-provisioning, virtual nodes (no VM at all), and AKS Automatic's system nodes, which Microsoft hosts. None: the
    API version in use does not tell.

    The last ones say how the cluster itself can be asked: `entra`, its users are Entra ID's, `invoke_disabled`, no
    command can be invoked, `private`, its API server is reached from its own network only, `api_servers`, the names by
    which that is known (in lower case).
    """

    id: str
    subscription: str
    resource_group: str
    name: str
    location: str
    power: str
    provisioning: str
    node_resource_group: str
    locked: bool | None
    kubernetes_version: str | None
    pools: tuple[NodePool, ...]
    auto_provisioned: bool | None = False
    virtual_nodes: bool = False
    hosted_system: bool | None = False
    entra: bool = False
    invoke_disabled: bool = False
    private: bool = False
    api_servers: tuple[str, ...] = ()


def instance_resource_id(subscription: str, node_resource_group: str, scale_set: str, instance_id: str) -> str:
    """The Azure resource id of an instance of a scale set, or of a single VM, which is in none (`scale_set` empty)."""
    of_set = f"/virtualMachineScaleSets/{scale_set}" if scale_set else ""
    return (
        f"/subscriptions/{subscription}/resourceGroups/{node_resource_group}"
        f"/providers/Microsoft.Compute{of_set}/virtualMachines/{instance_id}"
    )


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of a pool: an instance of its scale set, or a single VM.

    `id` is its Azure resource id, by which it is known. A single VM has no `scale_set`, and its name as `instance_id`.
    `power` is the instance view's code without its prefix (`running`, `deallocated`, `stopped`, …; empty where
    Azure gave none), `created` the machine's `timeCreated`. `node_image_version` and `created` tell a
    reimaged or replaced node from the one seen before.
    """

    subscription: str
    resource_group: str
    cluster: str
    location: str
    node_pool: str
    node_resource_group: str
    scale_set: str
    instance_id: str
    name: str
    os: str
    power: str
    provisioning: str
    kubernetes_version: str | None
    node_image_version: str | None
    created: datetime | None
    cluster_provisioning: str
    pool_provisioning: str
    locked: bool | None
    id: str = ""

    def __post_init__(self) -> None:
        # What was stored before nodes had it was of instances alone, whose id follows from the rest.
        if not self.id and self.instance_id:
            made = instance_resource_id(self.subscription, self.node_resource_group, self.scale_set, self.instance_id)
            object.__setattr__(self, "id", made)

    @property
    def key(self) -> str:
        """The resource id in lower case: equal for the same machine however Azure spelt it."""
        return self.id.lower()

    @property
    def single(self) -> bool:
        """Whether it is a VM of its own, and no instance of a scale set."""
        return not self.scale_set


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something could not be looked at: becomes a finding for what it stands for, never a lost node.

    `status` is `error`, `skipped` or `not_applicable`; `reason` says what was met, `hint` what a person can do.
    `code` is Azure's error code or a short word of our own (`no_output`, `deadline`), for telemetry and tests.
    `may_have_run` says that a command may have been carried out although its result is not known.
    """

    status: Status
    code: str
    reason: str
    hint: str
    may_have_run: bool = False


@dataclass(frozen=True, slots=True)
class ScopeProblem:
    """A problem with a whole subscription, cluster or pool: what is not known is the empty string.

    `passing` says that looking again may well find no problem.
    """

    subscription: str
    resource_group: str
    cluster: str
    node_pool: str
    problem: Problem
    passing: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """What earlier runs knew of one control on one node (the state that `regressed` is judged by).

    `seen` is when this was last written: where something of it changed, and else once in a while. `since` is when the
    status began (None: not known). `last_right` is when it was last written down as right: of a failing one, the begin
    of its last right time or a later look in it. `node_image_version` and `created` are those of then. `proof` is the
    fingerprint of what the kubelet's process was last proved to have read (`Verdict.proof`). `last_rolled_back` is set
    from a fix that was rolled back until the control is right. `looked` is when the node itself was last looked at by a
    run that asks for nodes only now and then (None: never), and `looked_by` the digest of the control's rule then.
    """

    node_key: str
    control: str
    status: Status
    seen: datetime
    last_right: datetime | None
    last_fixed: datetime | None
    node_image_version: str | None
    created: datetime | None
    proof: str = ""
    last_rolled_back: datetime | None = None
    since: datetime | None = None
    looked: datetime | None = None
    looked_by: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One control's verdict on one node, or on a cluster or pool whose nodes could not be listed.

    For the latter `node`, `instance_id`, `scale_set` and `resource_id` (and perhaps more) are empty. `resource_id` is
    the Azure resource id of the node's machine (empty also where an earlier version made the finding); a single VM has
    no `scale_set`, and its name as `instance_id`. `actual` and `expected` are the setting's values (None where it is
    not known), `source` says where the actual value comes from, `reason` is a sentence a person can act on and `hint`
    what to do. `restart_pending` is set where what is on disk is not what the process runs with. `benchmark` names
    benchmark and version, `catalogue` the digest of a catalogue of one's own (empty: none), `witness` who was asked
    (`node`, `configz`, or both). `outcome` is set by a
    fix only.
    """

    run_id: str
    observed: datetime
    control: str
    title: str
    severity: str
    status: Status
    subscription: str
    resource_group: str
    cluster: str
    location: str
    node_pool: str
    scale_set: str
    instance_id: str
    node: str
    actual: bool | int | str | tuple[str, ...] | None
    expected: bool | int | str | tuple[str, ...] | None
    source: str
    reason: str
    hint: str = ""
    code: str = ""
    benchmark: str = ""
    catalogue: str = ""
    witness: str = ""
    restart_pending: bool = False
    node_image_version: str | None = None
    node_created: datetime | None = None
    outcome: Outcome | None = None
    regressed: bool = False
    last_right: datetime | None = None
    reimaged_since: bool | None = None
    resource_id: str = ""

    @property
    def key(self) -> str:
        """Identifies the finding within its run: the same place and control twice is one row."""
        return f"{self.place}|{self.control.lower()}"

    @property
    def place(self) -> str:
        """What the finding is of: equal for all findings of a node in a run. A machine is known by its resource id."""
        if self.resource_id:
            return self.resource_id.lower()
        place = (
            self.subscription,
            self.resource_group,
            self.cluster,
            self.node_pool,
            self.scale_set,
            self.instance_id,
        )
        return "|".join(place).lower()


@dataclass(frozen=True, slots=True)
class File:
    """One file of the node as it was read, through the kubelet's root and mounts where its process runs.

    `path` is the absolute name that the kubelet has for it. `text` may have values masked with `*`, one for one;
    `digest` is the SHA-256 of the file as it really is. `changed` is the inode's change time in nanoseconds since the
    epoch. `whole` is false where the file is longer than was read, or has bytes (NUL) that a shell cannot carry.
    `hosted` is false where the host has another file (or none) at this path than the process sees. Undecodable bytes
    are kept as surrogates.
    """

    path: str
    text: str
    mode: int
    uid: int
    gid: int
    size: int
    changed: int
    digest: str
    whole: bool
    hosted: bool = True


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a file whose content nobody asks for, links followed: the mode's bits and who owns it.

    `path` is the name that it has for the kubelet. `regular` is false for what is there and no regular file. `hosted`
    as in File.
    """

    path: str
    mode: int
    uid: int
    gid: int
    regular: bool = True
    hosted: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link on the way to a file: where it leads, and its own change time (nanoseconds since the epoch)."""

    target: str
    changed: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What the kubelet's own walk (filepath.WalkDir) of a configuration directory finds.

    `files` are the paths of the `.conf` entries that are no directories, in the walk's order: also those that are
    dangling, lead to a directory or cannot be read (they are then in `Evidence.gone`). `directories` are those walked.
    """

    files: tuple[str, ...]
    directories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount that a path of the kubelet lies on, as its process has it (proc(5), mountinfo); `/` itself is left out.

    `same` says that it shows what would be there without it (a bind of a directory onto itself, as ProtectSystem= and
    ReadOnlyPaths= make).
    """

    point: str
    root: str
    kind: str
    source: str
    same: bool


@dataclass(frozen=True, slots=True)
class Process:
    """The kubelet's process. Times are in nanoseconds.

    `ticks` is field 22 of /proc/PID/stat, which with `boot_id` and `pid` names this process and no other. `started` is
    the wall clock when systemd started it (ExecMainStartTimestamp; since the epoch), `started_monotonic` the kernel's
    clock then (since boot); None where systemd does not say. `state` is the letter of /proc/PID/stat: R, S, D, T, t, Z.
    `version` is what its own executable answers ("v1.33.5"; empty: not known). `argv` is its whole command line.
    """

    boot_id: str
    pid: int
    ticks: int
    argv: tuple[str, ...]
    state: str = "S"
    started: int | None = None
    started_monotonic: int | None = None
    version: str = ""
    executable: str = ""
    root: str = "/"
    directory: str = "/"
    uid: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What answered at ADDRESS:PORT/healthz: the start of the body, empty where nothing answered."""

    address: str
    port: int
    answer: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A `Condition…=` or `Assert…=` line of the unit as it is written, and whether it holds now (None: not known)."""

    text: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a node showed. Times are nanoseconds, by the node's own clocks.

    `collected` is the wall clock (since the epoch) and `uptime` the kernel's (since boot) when it was read. `process`
    is None where no kubelet runs. `files`, `links` and `directories` (path → change time of the directory itself) hold
    what was met on the way to every file, by the paths as the walk names them; `gone` names paths that should be there
    and are not (or cannot be read). `listings` has each configuration directory by its name as the command line has it
    (made absolute), None where the listing is not known. `exists` says of other named files (a client CA) whether they
    are there. `metadata` has what is known of the files that controls are about, by their path: None where it is not
    there. `log` are the values of the controls' settings in the kubelet's own log of what it runs with (setting →
    the YAML text), None where that log is not there or not whole; a setting it lacks has Go's zero value.
    `manager_environment` has those of the service manager's variables that the unit uses. `refuses_manual` says that
    systemd would refuse a restart by hand. `unfinished` describes a fix that was begun and not ended (empty: none).
    `missing_tools` are commands that the script needed and the node lacks.
    """

    collected: int
    process: Process | None = None
    uptime: int = 0
    load_state: str = ""
    active_state: str = ""
    sub_state: str = ""
    restarts: int | None = None
    needs_daemon_reload: bool = False
    refuses_manual: bool = False
    systemd_version: int | None = None
    health: tuple[Health, ...] = ()
    units: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    manager_environment: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    files: Mapping[str, File] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    directories: Mapping[str, int] = field(default_factory=dict)
    listings: Mapping[str, Listing | None] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    gone: frozenset[str] = frozenset()
    exists: Mapping[str, bool] = field(default_factory=dict)
    metadata: Mapping[str, Metadata | None] = field(default_factory=dict)
    log: Mapping[str, str] | None = None
    unfinished: str = ""
    missing_tools: tuple[str, ...] = ()
    overflow: bool = False

    @property
    def texts(self) -> dict[str, str]:
        """Path → text of every file that was read."""
        return {path: file.text for path, file in self.files.items()}


@dataclass(frozen=True, slots=True)
class Told:
    """What a node's kubelet told its cluster of itself (configz), or why it was not heard (`trouble`).

    `resource_id` is the machine's, in lower case. `asked` is when it was asked at the earliest. `values` are the
    settings that were asked for, each as JSON text; one that is absent has Go's zero value. `settings` is the digest of
    those that were asked for. `version` is the kubelet's, `boot_id` that of the kernel under it, `ready` the node's
    condition (None: not known).
    """

    resource_id: str
    name: str
    asked: datetime
    version: str = ""
    boot_id: str = ""
    ready: bool | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    trouble: Problem | None = None
    settings: str = ""


class RunKind(StrEnum):
    """What a run sets out to do."""

    AUDIT = "audit"
    PLAN = "plan"
    FIX = "fix"


class RunState(StrEnum):
    """Where a run stands. Every state but the first two is final."""

    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more comes."""
        return self not in (RunState.RUNNING, RunState.AWAITING_APPROVAL)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run came to: findings by status (a node has one for each control), nodes by outcome, and what it cost.

    `throttled_seconds` is the time spent waiting for Azure's limits, over all lanes.
    """

    statuses: Mapping[Status, int] = field(default_factory=dict)
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    nodes: int = 0
    azure_calls: int = 0
    throttled_seconds: float = 0.0


class Starter(StrEnum):
    """Who started a run."""

    TIMER = "timer"
    HTTP = "http"
    TERMINAL = "terminal"


@dataclass(frozen=True, slots=True)
class Approval:
    """What a fix waits for before it changes a node.

    `manual` says whether a person has to say yes, `why` why where nobody asked for that. Once the plan is there,
    `digest` names it, and once the run waits `expires` says until when.
    """

    manual: bool = False
    why: str = ""
    digest: str = ""
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run, from request to summary. `id` is made by `shared.store.new_run_id` and sorts by time.

    `request` is what was asked for, as values that JSON knows (subscriptions, clusters, node pools, controls, method);
    `summary` and `finished` are None while it runs. `error` is empty unless the run as a whole failed, ended early, or
    could not look at everything, as where Azure was away for too long. `by` is who started it. A fix names the run that
    made its plan (`plan_run`), and that one the fix that it was made for
    (`fix_run`), if it was made for one. `epoch` counts how often it was begun: what an earlier beginning left going
    ends when it sees the number. `engine` is the version of the engine that began it (`shared.runs.model.ENGINE`).
    """

    id: str
    kind: RunKind
    state: RunState
    started: datetime
    finished: datetime | None = None
    request: Mapping[str, object] = field(default_factory=dict)
    summary: RunSummary | None = None
    error: str = ""
    by: Starter = Starter.TERMINAL
    plan_run: str = ""
    fix_run: str = ""
    approval: Approval | None = None
    epoch: int = 0
    engine: int = 0

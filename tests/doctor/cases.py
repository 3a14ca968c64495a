"""Fleets, settings and surroundings in which a run would not work as it should, and the row that says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sandbox import Fault

SUBSCRIPTION = "5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1"
GROUP = "MC_rg-test_aks-test_westeurope"
OBJECT = "c2a7e1b4-93f5-4f0e-a6d1-7b8c9d0e1f23"

READS = """
          - Microsoft.Resources/subscriptions/read
          - Microsoft.ContainerService/managedClusters/read
          - Microsoft.Compute/virtualMachineScaleSets/read
          - Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read
          - Microsoft.Compute/virtualMachines/read
          - Microsoft.Compute/locations/operations/read
          - Microsoft.Authorization/*/read"""
RUN = """
          - Microsoft.Compute/virtualMachineScaleSets/virtualMachines/runCommand/action
          - microsoft.compute/VIRTUALMACHINES/runCommand/action"""
INVOKE = """
          - Microsoft.ContainerService/managedClusters/*/action
          - Microsoft.ContainerService/managedClusters/commandResults/read"""


def fleet(*, of_subscription: str = "", of_cluster: str = "", clusters: bool = True, timing: str = "") -> str:
    """A subscription with one cluster of one node, in YAML."""
    cluster = f"""
    clusters:
      - name: aks-test
        resource_group: rg-test
        location: westeurope
        version: 1.33.5
{of_cluster or "        pools: [{name: np1, nodes: [{state: compliant_default}]}]"}
"""
    return f"""
timing: {{latency: [0.2, 0.2]{timing}}}
subscriptions:
  - id: {SUBSCRIPTION}
    name: Test
{of_subscription}{cluster if clusters else ""}
"""


def roles(*parts: str, but: str = "") -> str:
    """Roles of the subscription as a fleet names them."""
    left_out = f"\n        not_actions: [{but}]" if but else ""
    return "    roles:\n" + "".join(f"      - actions:{part}{left_out}\n" for part in parts)


@dataclass(frozen=True)
class Case:
    """What is wrong, and the row that is to say so: area, status, and parts of its text (what, reason, command)."""

    name: str
    area: str
    status: str
    says: tuple[str, ...]
    fleet: str = field(default_factory=fleet)
    settings: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    command: str = ""
    code: int | None = None


SWEEPS = {"witness": "both"}
ALONE = {"witness": "configz"}
GRANT = (
    f"az deployment sub create --subscription {SUBSCRIPTION} --location westeurope"
    " --name kubelet-guard-access-westeurope --template-file infra/access-subscription.bicep"
    f" --parameters principalId={OBJECT} subscriptions='[\"{SUBSCRIPTION}\"]'"
)
_RUNS = "run a command on a node Microsoft.Compute/virtualMachineScaleSets/virtualMachines/runCommand/action: "
_LACKS, _HAS = f"{_RUNS}no role", f"{_RUNS}allowed in its node resource groups"
_POOLS = "        pools: [{name: np1, nodes: [{state: compliant_default}]}]\n"

CASES = (
    # Rights.
    Case(
        "an action that no role has",
        "rights",
        "fail",
        (_LACKS,),
        fleet(of_subscription=roles(READS)),
        command=GRANT,
    ),
    Case(
        "an action that its role takes out again",
        "rights",
        "fail",
        ("ask for a command's result", "Microsoft.Compute/locations/operations/read: no role"),
        fleet(of_subscription=roles(READS + RUN, but="Microsoft.Compute/locations/*")),
        command=GRANT,
    ),
    Case(
        "an action that is given in no node resource group either",
        "rights",
        "fail",
        (
            _LACKS,
            "nor in its node resource groups for aks-test",
        ),
        fleet(of_subscription=roles(READS) + f"      - actions:{RUN}\n        group: rg-other\n"),
        command=GRANT,
    ),
    Case(
        "an action that is given in the node resource group alone",
        "rights",
        "ok",
        (_HAS,),
        fleet(of_subscription=roles(READS) + f"      - actions:{RUN}\n        group: {GROUP.lower()}\n"),
        code=0,
    ),
    Case(
        "a node resource group whose permissions are refused",
        "rights",
        "unknown",
        (
            _LACKS,
            "could not be told for aks-test",
            "teapot",
        ),
        fleet(of_subscription=roles(READS)),
        fault=Fault("permissions.list", path=GROUP, count=9, status=400, code="Teapot", message="teapot"),
        command=GRANT,
    ),
    Case(
        "no cluster where an action is lacking",
        "rights",
        "warn",
        (
            _LACKS,
            "there is no cluster now",
        ),
        fleet(of_subscription=roles(READS), clusters=False),
        command=GRANT,
        code=0,
    ),
    Case(
        "the sweep's actions",
        "rights",
        "fail",
        ("invoke a command in a cluster", "managedClusters/runCommand/action: no role", "nor on its clusters"),
        fleet(of_subscription=roles(READS + RUN)),
        SWEEPS,
        command=f"{GRANT} sweep=true",
    ),
    Case(
        "the sweep's actions, on the cluster's own group",
        "rights",
        "ok",
        ("invoke a command in a cluster", "allowed on its clusters"),
        fleet(of_subscription=roles(READS + RUN) + f"      - actions:{INVOKE}\n        group: rg-test\n"),
        SWEEPS,
        code=0,
    ),
    Case(
        "the right to learn of API servers",
        "rights",
        "fail",
        ("learn where a cluster's API server is", "listClusterUserCredential/action: no role"),
        fleet(of_subscription=roles(READS + RUN)),
        {"witness": "configz", "sweep_way": "api"},
        command=f"{GRANT} nodes=false sweepApi=true",
    ),
    Case(
        "the right to list clusters",
        "rights",
        "fail",
        ("list the clusters", "managedClusters/read: no role"),
        fleet(of_subscription=roles(RUN + "\n          - Microsoft.Authorization/*/read")),
        command=GRANT,
    ),
    Case(
        "no right to see one's permissions",
        "rights",
        "unknown",
        ("the 8 actions that a run needs", "Microsoft.Authorization/permissions/read"),
        fleet(of_subscription=roles(READS + RUN, but="Microsoft.Authorization/permissions/read")),
        command=GRANT,
        code=2,
    ),
    Case(
        "a subscription that is not seen",
        "rights",
        "fail",
        ("see the subscription", "no role in it"),
        settings={"subscriptions": ("00000000-0000-0000-0000-00000000dead",)},
        command="subscriptions='[\"00000000-0000-0000-0000-00000000dead\"]'",
    ),
    Case(
        "a subscription in which nothing may be read",
        "cluster",
        "fail",
        ("list the clusters", "may not do Microsoft.ContainerService/managedClusters/read"),
        fleet(of_subscription="    forbidden: true\n"),
    ),
    Case(
        "a management group that is not there",
        "rights",
        "fail",
        ("what a run is of", "management group prod", "managementGroups/descendants/read"),
        settings={"management_group": "prod"},
        command="az deployment mg create --management-group-id prod --location westeurope",
    ),
    Case(
        "a list of permissions that Azure fails to give",
        "rights",
        "unknown",
        ("the 8 actions", "teapot"),
        fault=Fault("permissions.list", count=9, status=400, code="Teapot", message="teapot"),
        command=GRANT,
        code=2,
    ),
    # Deny assignments.
    Case(
        "a deny assignment on the subscription",
        "denied",
        "fail",
        ("'no commands'", "runCommand/action", "whatever role allows it"),
        fleet(of_subscription='    denies: [{name: no commands, actions: ["*/action"]}]\n'),
    ),
    Case(
        "a deny assignment on the node resource group, for this identity",
        "denied",
        "fail",
        ("'not you'", GROUP),
        fleet(
            of_subscription=f'    denies: [{{name: not you, actions: ["*"], not_actions: ["*/read"], group: {GROUP},'
            " principals: [me]}]\n"
        ),
    ),
    Case(
        "a deny assignment that names a group",
        "denied",
        "unknown",
        ("'some'", "names a group"),
        fleet(of_subscription='    denies: [{name: some, actions: ["*"], principals: [group admins]}]\n'),
        code=2,
    ),
    Case(
        "no right to see deny assignments",
        "denied",
        "unknown",
        ("Microsoft.Authorization/denyAssignments/read",),
        fleet(of_subscription=roles(READS + RUN, but="Microsoft.Authorization/denyAssignments/read")),
        command=GRANT,
        code=2,
    ),
    Case(
        "a read-only lock on the node resource group",
        "denied",
        "fail",
        ("lock 'frozen'", GROUP, "runCommand/action"),
        fleet(of_subscription=f"    locks: [{{name: frozen, group: {GROUP}}}]\n"),
        command=f"az lock delete --ids /subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/",
    ),
    Case(
        "no right to see locks",
        "denied",
        "unknown",
        ("Microsoft.Authorization/locks/read",),
        fleet(of_subscription=roles(READS + RUN, but="Microsoft.Authorization/locks/read")),
        command=GRANT,
        code=2,
    ),
    # Policies.
    Case(
        "a policy that turns command invoke off",
        "policy",
        "warn",
        ("'No invoke'", "turns command invoke off"),
        fleet(of_subscription="    policies: [{name: No invoke, definition: 1b708b0a-3380-40e9-8b79-821f9fa224cc}]\n"),
        SWEEPS,
        code=0,
    ),
    Case(
        "a policy that allows images",
        "policy",
        "warn",
        ("'Our images'", "excludedNamespaces"),
        fleet(
            of_subscription="    policies: [{name: Our images, definition: febd0533-8e55-448f-b837-bd0e06f16469,"
            " effect: Deny, excluded_namespaces: [kube-system]}]\n"
        ),
        SWEEPS,
        code=0,
    ),
    Case(
        "no right to see policies",
        "policy",
        "unknown",
        ("Microsoft.Authorization/policyAssignments/read",),
        fleet(of_subscription=roles(READS + RUN + INVOKE, but="Microsoft.Authorization/policyAssignments/read")),
        SWEEPS,
        command=f"{GRANT} sweep=true",
        code=2,
    ),
    # Clusters.
    Case(
        "a lockdown",
        "cluster",
        "fail",
        ("node resource group lockdown", "ReadOnly"),
        fleet(of_cluster=f"        lockdown: true\n{_POOLS}"),
        command="--name aks-test --nrg-lockdown-restriction-level Unrestricted",
    ),
    Case(
        "a stopped cluster",
        "cluster",
        "warn",
        ("the cluster is stopped",),
        fleet(of_cluster=f"        power: Stopped\n{_POOLS}"),
        command=f"az aks start --subscription {SUBSCRIPTION} --resource-group rg-test --name aks-test",
        code=0,
    ),
    Case(
        "a cluster that is being upgraded",
        "cluster",
        "warn",
        ("it is Upgrading",),
        fleet(of_cluster=f"        provisioning: Upgrading\n{_POOLS}"),
        code=0,
    ),
    Case(
        "command invoke disabled",
        "cluster",
        "fail",
        ("command invoke is disabled",),
        fleet(of_cluster=f"        command_invoke: disabled\n{_POOLS}"),
        ALONE,
        command="--name aks-test --enable-run-command",
    ),
    Case(
        "command invoke disabled where nodes are asked as well",
        "cluster",
        "warn",
        ("command invoke is disabled", "Its nodes are asked themselves"),
        fleet(of_cluster=f"        command_invoke: disabled\n{_POOLS}"),
        SWEEPS,
        command="--name aks-test --enable-run-command",
    ),
    Case(
        "a lockdown where clusters are asked as well",
        "cluster",
        "fail",
        ("node resource group lockdown", "what only a node shows is an error"),
        fleet(of_cluster=f"        lockdown: true\n{_POOLS}"),
        SWEEPS,
        command="--nrg-lockdown-restriction-level Unrestricted",
    ),
    Case(
        "a lockdown where nobody can be asked",
        "cluster",
        "fail",
        ("command invoke is disabled",),
        fleet(of_cluster=f"        lockdown: true\n        command_invoke: disabled\n{_POOLS}"),
        SWEEPS,
        command="--name aks-test --enable-run-command",
    ),
    Case(
        "no Entra ID, for the API server",
        "cluster",
        "fail",
        ("does not use Entra ID",),
        fleet(of_cluster=f"        entra: false\n        api_server: ok\n{_POOLS}"),
        {"witness": "configz", "sweep_way": "api"},
        command="--name aks-test --enable-aad",
    ),
    Case(
        "no Entra ID, for command invoke",
        "cluster",
        "warn",
        ("an administrator's rights",),
        fleet(of_cluster=f"        entra: false\n{_POOLS}"),
        SWEEPS,
        code=0,
    ),
    Case(
        "kubelets too old to be asked directly",
        "cluster",
        "fail",
        ("Kubernetes 1.32.9", "from 1.33 on"),
        fleet(of_cluster="        pools: [{name: np1, version: 1.32.9, nodes: [{state: compliant_default}]}]"),
        ALONE,
    ),
    Case(
        "a version of Kubernetes without data",
        "cluster",
        "warn",
        ("Kubernetes 1.99.0 is not known",),
        fleet(of_cluster="        pools: [{name: np1, version: 1.99.0, nodes: [{state: compliant_default}]}]"),
        code=0,
    ),
    Case(
        "nothing but Windows",
        "cluster",
        "warn",
        ("all of its pools run Windows",),
        fleet(of_cluster="        pools: [{name: win22, os: Windows, nodes: [{state: compliant_default}]}]"),
        code=0,
    ),
    # What the app reaches.
    Case(
        "an API server that does not answer",
        "outbound",
        "fail",
        ("the API server of aks-test", "localhost:443"),
        fleet(of_cluster=f"        fqdn: localhost\n{_POOLS}"),
        {"witness": "both", "sweep_way": "api"},
    ),
    Case(
        "telemetry that does not arrive",
        "outbound",
        "warn",
        ("Application Insights", "cannot be connected to"),
        environ={
            "APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=s3cret;IngestionEndpoint=https://localhost:9/"
        },
        code=0,
    ),
    Case(
        "host storage that is refused",
        "outbound",
        "fail",
        ("the host's storage (blob)", "127.0.0.1 (this machine)"),
        environ={"AzureWebJobsStorage__blobServiceUri": "https://localhost:9/"},
    ),
    Case(
        "a clock that is behind",
        "clock",
        "fail",
        ("behind Azure Resource Manager's",),
        fleet(timing=", clock_ahead: 400"),
        command="timedatectl set-ntp true",
    ),
    Case(
        "a clock that is a little ahead",
        "clock",
        "warn",
        ("ahead of Azure Resource Manager's",),
        fleet(timing=", clock_ahead: -120"),
        code=0,
    ),
    # Settings.
    Case("fixes without the key", "settings", "fail", ("GUARD_ALLOW_FIX=true",), settings={"mode": "fix"}),
    Case(
        "a control that there is not",
        "settings",
        "fail",
        ("GUARD_FIX_CONTROLS names 9.9.9",),
        settings={"fix_controls": ("9.9.9",)},
    ),
    Case(
        "a catalogue that cannot be read",
        "settings",
        "fail",
        ("GUARD_CONTROLS_FILE", "/dev/null"),
        settings={"controls_file": "/dev/null"},
    ),
)

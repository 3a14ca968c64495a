"""Compute's side of the sandbox: the instances, their run commands and the operations that report them."""

from __future__ import annotations

import asyncio
import random
import secrets
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sandbox import arm
from sandbox.arm import Body
from sandbox.fleet import Member, Timing
from sandbox.identity import CLIENT, PRINCIPAL
from sandbox.node import Folder
from sandbox.runcommand import Runner, message
from sandbox.states import STATES, Command

REMOVE_EXTENSION = "RemoveRunCommandLinuxExtension"
RUN_SCRIPT = "RunShellScript"

_ACTION = "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/runCommand/action"
_VM_ACTION = "Microsoft.Compute/virtualMachines/runCommand/action"
_FAILURES = {
    Command.DEAD_AGENT: (
        "VMAgentStatusCommunicationError",
        "VM '{name}' has not reported status for VM agent or extensions. Verify that the OS is up and healthy, the VM"
        " has a running VM agent, and that it can establish outbound connections to Azure storage.",
    ),
    Command.EXTENSION_FAILED: (
        "VMExtensionProvisioningError",
        "VM has reported a failure when processing extension 'RunCommandLinux' (publisher 'Microsoft.CPlat.Core' and"
        " type 'RunCommandLinux'). Error message: 'Failed to configure the extension.'.",
    ),
}


class Refused(Exception):
    """An answer with an error: HTTP status, Azure's code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(slots=True)
class Operation:
    """One long-running operation. `value` is its result, `error` its failure; neither while it is in progress."""

    id: str
    signature: str
    member: Member
    started: datetime
    ended: datetime | None = None
    value: Sequence[Body] | None = None
    error: tuple[str, str] | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> str:
        """Azure's word for where it stands."""
        if self.ended is None:
            return "InProgress"
        return "Failed" if self.error else "Succeeded"


@dataclass(slots=True)
class Instance:
    """An instance of a scale set or a single VM, and what run command currently does to it."""

    member: Member
    folder: Folder | None
    busy: bool = False
    stuck: bool = False
    free_at: float | None = None  # when somebody else's command ends


@dataclass(slots=True)
class Compute:
    """All instances and VMs by lower-case resource id, and all operations by id.

    With a `seed` the nth command of a node takes as long every time.
    """

    timing: Timing
    runner: Runner
    instances: Mapping[str, Instance]
    operations: dict[str, Operation] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    most_at_once: int = 0
    commands: Counter[str] = field(default_factory=Counter)  # accepted ones, by node name
    seed: str = ""

    def run_command(self, key: str, body: Body, now: float) -> Operation:
        """Accept a run command for the instance with this lower-case id, or raise Refused."""
        instance = self.instances[key]
        command = STATES[instance.member.state].command
        self._refuse(instance, command, body, now)
        operation = Operation(str(uuid.uuid4()), secrets.token_urlsafe(48), instance.member, datetime.now(UTC))
        self.operations[operation.id] = operation
        self.commands[instance.member.name] += 1
        instance.busy = True
        task = asyncio.create_task(
            self._carry_out(instance, command, body, operation, self._seconds(instance, command))
        )
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self.most_at_once = max(self.most_at_once, len(self.tasks))
        return operation

    async def close(self) -> None:
        """End everything that still runs."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.runner.close()

    def _refuse(self, instance: Instance, command: Command, body: Body, now: float) -> None:
        member = instance.member
        if member.cluster.lockdown:
            raise Refused(403, "DenyAssignmentAuthorizationFailed", _locked(member))
        if command is Command.FORBIDDEN:
            raise forbidden(_action(member), arm.member_id(member))
        if command is Command.VANISHED or (command is Command.VANISHED_INACTIVE and not member.scale_set):
            raise vanished(member)
        if command is Command.VANISHED_INACTIVE:
            text = f"The provided instanceId {member.instance_id} is not an active Virtual Machine Scale Set VM"
            raise Refused(400, "InvalidParameter", f"{text} instanceId.")
        if arm.power_state(member) != "running":
            text = "Cannot modify extensions in the VM when the VM is not running."
            raise Refused(409, "OperationNotAllowed", text)
        removing = body.get("commandId") == REMOVE_EXTENSION
        if not removing:
            _check_script(instance, body)
        if command is Command.BUSY and instance.free_at is None:
            instance.free_at = now + self.timing.busy_seconds
        elsewhere = instance.free_at is not None and now < instance.free_at
        if instance.busy or elsewhere or (instance.stuck and not removing):
            text = "Run command extension execution is in progress."
            raise Refused(409, "Conflict", f"{text} Please wait for completion before invoking a run command.")
        instance.stuck = False

    def _seconds(self, instance: Instance, command: Command) -> float:
        """How long the node's command that was just accepted takes, without its script."""
        name = instance.member.name
        chance = random.Random(f"{self.seed} {name} {self.commands[name]}" if self.seed else None)  # noqa: S311
        return chance.uniform(*self.timing.latency) + (self.timing.slow_seconds if command is Command.SLOW else 0.0)

    async def _carry_out(
        self, instance: Instance, command: Command, body: Body, operation: Operation, seconds: float
    ) -> None:
        # About half of what a run command takes goes by before the script starts, the rest before its result is told.
        await asyncio.sleep(seconds / 2)
        if command in _FAILURES:
            await asyncio.sleep(seconds / 2)
            code, text = _FAILURES[command]
            operation.error = (code, text.format(name=operation.member.name))
        else:
            text = "Enable succeeded: "
            if body["commandId"] == RUN_SCRIPT and instance.folder is not None:
                text = message(await self.runner.run(instance.folder, body["script"]), command)
            if command is Command.HANG:
                return  # still in progress, and the node stays busy
            await asyncio.sleep(seconds / 2)
            operation.value = [] if command is Command.EMPTY_RESULT else [_result(text)]
        operation.ended = datetime.now(UTC)
        operation.over.set()
        instance.busy = False


def _check_script(instance: Instance, body: Body) -> None:
    """Refuse what is not a script for a Linux node."""
    if body.get("commandId") != RUN_SCRIPT or instance.folder is None:
        text = f"The command '{body.get('commandId')}' is not one for this {instance.member.pool.os} machine."
        raise Refused(400, "BadRequest", text)
    script = body.get("script")
    if not isinstance(script, list) or not all(isinstance(line, str) for line in script) or body.get("parameters"):
        raise Refused(400, "InvalidParameter", "The sandbox takes a script as a list of lines, and no parameters.")


def instances(members: Iterable[Member], folders: Mapping[str, Folder]) -> dict[str, Instance]:
    """Every instance and VM by its lower-case resource id."""
    found: dict[str, Instance] = {}
    for member in members:
        stuck = STATES[member.state].command is Command.BUSY_STUCK
        folder = folders.get(member.name) if member.pool.os == "Linux" else None
        found[arm.member_id(member).lower()] = Instance(member, folder, stuck=stuck)
    return found


def _action(member: Member) -> str:
    return _ACTION if member.scale_set else _VM_ACTION


def forbidden(action: str, scope: str) -> Refused:
    """403 for a missing role assignment."""
    text = (
        f"The client '{CLIENT}' with object id '{PRINCIPAL}' does not have authorization to perform action"
        f" '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh"
        " your credentials."
    )
    return Refused(403, "AuthorizationFailed", text)


def vanished(member: Member) -> Refused:
    """404 for an instance that was scaled in, or a VM that was deleted."""
    return not_found(f"Microsoft.Compute/{member.resource}", member.cluster.node_group)


def not_found(name: str, group: str) -> Refused:
    """404 for a resource that a resource group does not have."""
    text = f"The Resource '{name}' under resource group '{group}' was not found."
    return Refused(
        404, "ResourceNotFound", f"{text} For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )


def operation_body(operation: Operation) -> Body:
    """What Azure-AsyncOperation answers."""
    body: Body = {"startTime": operation.started.isoformat()}
    if operation.ended is not None:
        body["endTime"] = operation.ended.isoformat()
    body |= {"status": operation.status, "name": operation.id}
    if operation.error is not None:
        body |= arm.error(*operation.error)
    elif operation.value is not None:
        body["properties"] = {"output": {"value": [*operation.value]}}
    return body


def _result(text: str) -> Body:
    return {
        "code": "ProvisioningState/succeeded",
        "level": "Info",
        "displayStatus": "Provisioning succeeded",
        "message": text,
    }


def _locked(member: Member) -> str:
    scope = arm.member_id(member)
    group = scope.partition("/providers/")[0]
    return (
        f"The client '{CLIENT}' with object id '{PRINCIPAL}' has permission to perform action"
        f" '{_action(member)}' on scope '{scope}'; however, the access is denied because of the deny"
        " assignment with name 'node resource group deny assignment created by Azure Kubernetes Services for"
        f" nrg-lockdown, see: https://aka.ms/aks/nrg_lockdown' and Id '{PRINCIPAL.replace('-', '')}' at scope"
        f" '{group}'."
    )

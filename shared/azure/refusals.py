"""What Azure's codes and sentences mean for a call: data, each with the word that `problems` has a row for.

Sources: Compute's list of error codes and messages for virtual machine operations ("Common error messages when you
manage virtual machines in Azure"), whose sentences are matched here as they are published, since one code
(OperationNotAllowed) stands for a node that is gone, one that is off, and one that is merely busy; Azure Resource
Manager's "Resolve common errors" and "Understand how Azure Resource Manager throttles requests"; AKS "node resource
group lockdown"; the Kubernetes cloud provider for Azure, whose constants hold the scale sets' own sentences.
"""

from __future__ import annotations

import re

CODES = {
    "vmagentstatuscommunicationerror": "agent_silent",
    "denyassignmentauthorizationfailed": "locked",
    "authorizationfailed": "forbidden",
    "linkedauthorizationfailed": "forbidden",
    "requestdisallowedbypolicy": "policy",
    "scopelocked": "scope_locked",
    "readonlydisabledsubscription": "subscription_disabled",
    "disabledsubscription": "subscription_disabled",
    "invalidauthenticationtokentenant": "wrong_tenant",
    "subscriptionnotfound": "subscription_missing",
    "invalidsubscriptionid": "subscription_missing",
    "disallowedoperation": "no_provider",
    "disallowedprovider": "no_provider",
    "subscriptionnotregistered": "no_provider",
    "missingsubscriptionregistration": "no_provider",
    "invalidresourcetype": "api_version",
    "noregisteredproviderfound": "api_version",
    "invalidapiversionparameter": "api_version",
    "resourcenotfound": "missing",
    "parentresourcenotfound": "missing",
    "resourcegroupnotfound": "missing",
    "vmnotfound": "missing",
    "resourcegroupbeingdeleted": "deleting",
    "anotheroperationinprogress": "operation_going_on",
    "operationinprogress": "operation_going_on",
    "retryableerrorduetoanotheroperation": "operation_going_on",
    "resourceupdateblockedonplatformupdate": "platform_update",
    "operationpreempted": "preempted",
    "vmextensionmanagementinternalerror": "extension_failed",
    "vmartifactrepositoryinternalerror": "extension_failed",
    "vmextensionprovisioningerror": "command_failed",
    "vmextensionprovisioningtimeout": "command_failed",
    "vmextensionhandlernontransienterror": "command_failed",
    "missingaadclustertoken": "no_cluster_token",
    "kubernetesperformanceerror": "no_capacity",
}
"""Azure's error codes in lower case, where the code alone says it."""

_SET = r"(?:virtual machine|vm) ?scale ?set"
SENTENCES = tuple(
    (re.compile(pattern, re.IGNORECASE), word)
    for pattern, word in (
        # A command invoked in a cluster.
        (r"container \S+ in aks-command namespace did not start within", "no_capacity"),
        (r"admission webhook \"?[^\" ]+\"? denied the request", "invoke_denied"),
        # Another run command.
        (r"run command extension execution is in progress", "busy"),
        (r"failed due to conflict with a concurrent request", "busy"),
        # The extension that runs it is being removed, the machine stays.
        (r"is not allowed on VM extension '[^']*' since it is marked for deletion", "busy"),
        # Another operation on the machine.
        (r"since another operation is in progress", "operation_going_on"),
        (r"preempted by a more recent operation", "preempted"),
        # The power state is on its way to another, which the sentence names.
        (
            r"changing power state of virtual machine \S+ to '?(?:stopped|poweredoff|deallocated|hibernated)\b",
            "not_running",
        ),
        (r"changing power state of virtual machine \S+ to '?deleted\b", "deleting"),
        (r"changing power state of virtual machine \S+ to ", "starting"),
        # The machine goes.
        (r"since the VM is marked for deletion", "deleting"),
        (rf"is not allowed on {_SET}(?: VM)?(?: instance)? '[^']*' since it is marked for deletion", "deleting"),
        (r"is not an active virtual machine scale set VM", "vanished"),
        # The machine is off. (That it "is not deallocated" says the contrary.)
        (r"since the VM is either deallocated or marked to be deallocated", "not_running"),
        (r"the operation requires the VM to be running \(or set to run\)", "not_running"),
        (r"cannot modify extensions in the VM when the VM is not running", "not_running"),
    )
)
"""Azure's sentences, where the code does not say enough; the first that is found in a message counts."""

WAITED_FOR = {"busy", "operation_going_on", "platform_update", "preempted", "starting"}
"""What ends by itself: the same call may well succeed after it."""

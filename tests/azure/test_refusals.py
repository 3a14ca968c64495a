"""Azure's codes and published sentences, and what they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.azure.problems import _TABLE, Fault, body_error, response_fault, word
from shared.azure.refusals import CODES, SENTENCES, WAITED_FOR

# Compute's published list for OperationNotAllowed, as far as it speaks of a machine, and what it means for a command.
PUBLISHED = {
    "Cannot modify extensions in the VM when the VM is not running.": "not_running",
    "The operation requires the VM to be running (or set to run).": "not_running",
    "Operation 'runCommand' is not allowed on VM 'x' since the VM is either deallocated or marked to be deallocated.": (
        "not_running"
    ),
    "Operation 'runCommand' is not allowed on VM 'x' since the VM is marked for deletion. You can only retry the "
    "Delete operation (or wait for an ongoing one to complete).": "deleting",
    "Operation 'runCommand' is not allowed on VM 'x' since another operation is in progress.": "operation_going_on",
    "Operation 'runCommand' is not allowed on VM 'x' since the VM is generalized.": "not_allowed",
    "Operation 'runCommand' is not allowed on VM 'x' since the VM is not deallocated.": "not_allowed",
    "Operation 'runCommand' is not allowed on VM 'x' since the VM is running. Please power off explicitly in case "
    "you shut down the VM from inside the guest operating system.": "not_allowed",
    "Operation 'runCommand' is not allowed on VM 'x' since VM has extension 'y' in failed state.": "not_allowed",
    "Operation 'PUT Extension' is not allowed on VM extension 'RunCommandLinux' since it is marked for deletion. "
    "You can only retry the Delete operation (or wait for an ongoing one to complete).": "busy",
    "Operation 'x' is not allowed on Image 'y' since the Image is marked for deletion.": "not_allowed",
    "Operation 'x' is not allowed as Restore point collection 'y' is marked for deletion.": "not_allowed",
    "Operation 'Put on Virtual Machine Scale Set VM Instance' is not allowed on Virtual Machine Scale Set "
    "'aks-np-vmss' since it is marked for deletion.": "deleting",
    "The operation 'x' requires the Virtual Machine 'y' to be Generalized.": "not_allowed",
    "Management operations on VM 'x' are disallowed because VM disks are being converted to managed disks.": (
        "not_allowed"
    ),
    "Updates to encryptionSettings is not allowed when VM is allocated, Please retry after VM is deallocated": (
        "not_allowed"
    ),
    "To resize your VM to x please deallocate (this is Stop operation in the Azure portal).": "not_allowed",
    "An ongoing operation is changing power state of Virtual Machine x to started. Please perform operation y after "
    "some time.": "starting",
    "An ongoing operation is changing power state of Virtual Machine 'x' to restarted.": "starting",
    "An ongoing operation is changing power state of Virtual Machine 'x' to stopped. Please perform operation y after "
    "some time.": "not_running",
    "An ongoing operation is changing power state of Virtual Machine x to deallocated.": "not_running",
    "The maximum number of data disks allowed to be attached to a VM of this size is 4.": "not_allowed",
}


@pytest.mark.parametrize("sentence", PUBLISHED)
def test_published_sentences(sentence: str) -> None:
    assert word(Fault(409, "OperationNotAllowed", sentence)) == PUBLISHED[sentence]


def test_every_word_has_its_row() -> None:
    assert {*CODES.values(), *(met for _, met in SENTENCES), *WAITED_FOR} <= set(_TABLE)


@pytest.mark.parametrize(
    ("status", "code", "met"),
    [
        (409, "ResourceUpdateBlockedOnPlatformUpdate", "platform_update"),
        (409, "OperationPreempted", "preempted"),
        (None, "OperationPreempted", "preempted"),
        (429, "RetryableErrorDueToAnotherOperation", "operation_going_on"),
        (429, "TooManyRequests", "throttled"),
        (409, "VMExtensionManagementInternalError", "extension_failed"),
        (500, "VMExtensionManagementInternalError", "extension_failed"),
        (404, "NotFound", "not_found"),
        (404, "", "not_found"),
        (404, "VMNotFound", "missing"),
        (404, "ParentResourceNotFound", "missing"),
        (404, "ResourceGroupNotFound", "missing"),
        (404, "SubscriptionNotRegistered", "no_provider"),
        (400, "DisallowedProvider", "no_provider"),
        (404, "InvalidResourceType", "api_version"),
    ],
)
def test_codes(status: int | None, code: str, met: str) -> None:
    assert word(Fault(status, code, "x")) == met


def test_what_a_node_prints_is_no_sentence_of_azures() -> None:
    text = "Enable failed: since the VM is marked for deletion"
    assert word(Fault(None, "ProvisioningState/failed/1", text)) == "command_failed"
    assert word(Fault(None, "ComponentStatus/StdOut/failed", text)) == "command_failed"
    assert word(Fault(409, "VMExtensionProvisioningError", text)) == "command_failed"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error": {"code": "C", "message": "M"}}, "C", "M"),
        ({"code": "C", "message": "M"}, "C", "M"),
        ({"Code": "C", "Message": "M"}, "C", "M"),
        ({"Message": "No HTTP resource was found."}, "", "No HTTP resource was found."),
        ({"error": {"code": "", "message": "", "details": [{"code": "C", "message": "M"}]}}, "C", "M"),
        ({"error": {"code": "A", "message": "m", "details": [{"code": "B", "message": "n"}]}}, "B", "m: n"),
        ({"error": {"code": "A", "message": "m", "details": [{"code": None, "message": "m"}]}}, "A", "m"),
        (
            {"error": {"code": "A", "message": "m", "details": [{"code": "B", "details": [{"code": "C"}]}]}},
            "C",
            "m",
        ),
        ({"error": {"code": "A", "message": "m", "details": [None, 7, {"code": "B"}]}}, "B", "m"),
        ({"error": {"code": 7, "message": ["m"], "details": {"code": "B"}}}, None, None),
        ({"error": "text"}, "", "text"),
        ({"error": None}, None, None),
        ({"value": []}, None, None),
        ([{"code": "C"}], None, None),
    ],
)
def test_bodies_of_errors(body: object, code: str | None, message: str | None) -> None:
    assert body_error(body) == (None if code is None else (code, message))


jsons = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "code", "message", "details", "Code"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(jsons)
def test_any_body_is_read(body: object) -> None:
    found = body_error(body)
    assert found is None or any(found)


@given(st.integers(300, 599), st.text(max_size=50))
def test_any_text_is_read(status: int, text: str) -> None:
    assert response_fault(status, text).status == status


def test_a_body_that_nests_without_end() -> None:
    body: dict[str, object] = {"code": "deepest"}
    for _ in range(500):
        body = {"code": "C", "details": [body]}
    assert body_error({"error": body}) == ("C", "")

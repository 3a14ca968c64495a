"""The custom roles have exactly the actions that the code's calls need: those of the SDK's clients found in the code,
those by hand in its table of operations; actions are what Azure Resource Manager derives from method and address."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from shared.azure import operations
from shared.azure.operations import CREDENTIALS, INVOKE, INVOKE_RESULT, POLL_ACTION, Operation
from tests.support.bicep import ACCESS, APPS, INFRA

ROOT = INFRA.parent


SUBSCRIPTIONS, CONTAINERS, COMPUTE = (
    "azure.mgmt.resource.subscriptions",
    "azure.mgmt.containerservice",
    "azure.mgmt.compute",
)


class Call(NamedTuple):
    """`client.group.method` of one of the SDK's packages."""

    package: str
    group: str
    method: str


def sources() -> list[Path]:
    """The deployed code."""
    return [path for path in [*sorted((ROOT / "shared").rglob("*.py")), ROOT / "function_app.py"] if path.exists()]


def _actions(name: str) -> set[str]:
    actions: dict[str, str] = json.loads((INFRA / name).read_text())
    assert all(actions.values()), "every action says what it is for"
    return set(actions)


def nodes_role() -> set[str]:
    return _actions("actions.json")


def sweep_role(invoke: bool = True, api: bool = True) -> set[str]:
    """As the templates put it together: what finds nodes, and what the sweep alone needs, by one way or by both."""
    found = {action for action in nodes_role() if action.endswith("/read") and action != POLL_ACTION}
    found |= _actions("actions-sweep.json") if invoke else set()
    return found | (_actions("actions-sweep-api.json") if api else set())


def granted() -> set[str]:
    return nodes_role() | sweep_role()


# --- calls in the code ------------------------------------------------------------------------------------------------


def operations_of_the_code() -> dict[str, Operation]:
    """Every call by hand, by its name in `shared.azure.operations`."""
    return {name: value for name, value in vars(operations).items() if isinstance(value, Operation)}


@cache
def clients() -> dict[str, str]:
    """Every management client class that the code imports, with its package."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("azure.mgmt."):
                for alias in node.names:
                    if alias.name.endswith("Client"):
                        assert alias.asname is None, f"{path}: import {alias.name} by its own name"
                        found[alias.name] = (node.module or "").removesuffix(".aio")
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("azure.mgmt.") for alias in node.names), (
                    f"{path}: use from … import"
                )
    return found


@cache
def factories() -> dict[str, str]:
    """Functions that are annotated to return a management client: name to the client's package."""
    return {
        node.name: clients()[returned]
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None
        if (returned := ast.unparse(node.returns).strip("'\"")) in clients()
    }


def _called(node: ast.expr) -> str | None:
    if not isinstance(node, ast.Call):
        return None
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def calls(source: str, where: str) -> set[Call]:
    """The SDK calls of one file. Fails where a client is used in a way that cannot be followed."""
    found: set[Call] = set()
    followed: set[int] = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            package = factories().get(_called(node.value.value) or "")
            if package:
                found.add(Call(package, node.value.attr, node.attr))
                followed.add(id(node.value.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in factories() and id(node) not in followed:
            pytest.fail(f"{where}:{node.lineno}: write the SDK call as one chain, client().group.method(…)")
    return found


def all_calls() -> set[Call]:
    return {call for path in sources() for call in calls(path.read_text(), str(path.relative_to(ROOT)))}


def own_requests(source: str, where: str) -> set[tuple[str, str]]:
    """Where requests are made: file and function."""
    return {
        (where, function.name)
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and _called(node) == "HttpRequest"
    }


# --- actions of a call, by the SDK ------------------------------------------------------------------------------------


@cache
def _tree(package: str, file: str) -> ast.Module:
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations
    return ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text())


def _strings(node: ast.AST, variable: str) -> list[str]:
    return [
        str(assign.value.value)
        for assign in ast.walk(node)
        if isinstance(assign, ast.Assign)
        and isinstance(assign.value, ast.Constant)
        and any(isinstance(target, ast.Name) and target.id == variable for target in assign.targets)
    ]


def request_of(call: Call) -> tuple[str, str]:
    """HTTP method and URL template of an SDK call, read from the SDK's source. Fails for a call that is not there."""
    package = call.package
    group_class: str | None = None
    for node in ast.walk(_tree(package, "aio/_client.py")):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == f"self.{call.group}":
            group_class = _called(node.value)
    body = _tree(package, "aio/operations/_operations.py")
    group = next((node for node in body.body if isinstance(node, ast.ClassDef) and node.name == group_class), None)
    # A long-running call sends its request in a helper of its own.
    names = {call.method, f"_{call.method.removeprefix('begin_')}_initial"}
    methods = [
        node
        for node in (group.body if group else [])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in names
    ]
    builders = {
        name
        for method in methods
        for node in ast.walk(method)
        if (name := _called(node) if isinstance(node, ast.Call) else None) and name.startswith("build_")
    }
    if len(builders) != 1:
        pytest.fail(f"{call}: no such operation in {package}, or none that can be read")
    (name,) = builders
    built = next(
        node
        for node in _tree(package, "operations/_operations.py").body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    (url,) = _strings(built, "_url")
    (method,) = {
        str(keyword.value.value)
        for node in ast.walk(built)
        if isinstance(node, ast.Call) and _called(node) == "HttpRequest"
        for keyword in node.keywords
        if keyword.arg == "method" and isinstance(keyword.value, ast.Constant)
    }
    return method, url


def action_of(method: str, url: str) -> str:
    """The action that Azure Resource Manager asks for: the types of the path, and read or the last word of a POST."""
    path = url if "/providers/" in url else f"/providers/Microsoft.Resources{url}"
    namespace, *rest = path.split("/providers/")[-1].strip("/").split("/")
    types = [word for word in rest if not re.fullmatch(r"\{\w+\}", word)]
    verb = {"GET": "read", "POST": "action", "PUT": "write", "PATCH": "write", "DELETE": "delete"}[method]
    return "/".join([namespace, *types, verb])


def actions_of(call: Call) -> set[str]:
    """The actions that a call needs, its polling included."""
    polls = {COMPUTE: POLL_ACTION, CONTAINERS: INVOKE_RESULT}
    polled = {polls[call.package]} if call.method.startswith("begin_") else set()
    return {action_of(*request_of(call))} | polled


def shape(path: str) -> list[str]:
    """A path without the names of its parts; Azure's paths are case-insensitive."""
    return ["{}" if re.fullmatch(r"\{\w+\}", word) else word.lower() for word in path.split("/")]


# --- tests ------------------------------------------------------------------------------------------------------------


def test_the_clients_of_the_sdk_are_what_the_code_calls_azure_with() -> None:
    assert all_calls() == {
        Call(CONTAINERS, "managed_clusters", "list"),
        Call(CONTAINERS, "managed_clusters", "get"),
        Call(CONTAINERS, "managed_clusters", "begin_run_command"),
        Call(COMPUTE, "virtual_machine_scale_set_vms", "get"),
        Call(COMPUTE, "virtual_machine_scale_set_vms", "begin_run_command"),
        Call(COMPUTE, "virtual_machines", "get"),
        Call(COMPUTE, "virtual_machines", "begin_run_command"),
    }


def test_the_role_has_exactly_the_actions_that_the_calls_need() -> None:
    needed = {action.lower() for call in all_calls() for action in actions_of(call)}
    needed |= {operation.action.lower() for operation in operations_of_the_code().values()}
    have = {action.lower() for action in granted()}
    assert needed - have == set(), "the code calls what the role does not allow"
    assert have - needed == set(), "the role allows what the code does not call"


def test_each_role_has_what_the_other_one_is_not_for() -> None:
    assert {INVOKE, INVOKE_RESULT, CREDENTIALS.action} <= sweep_role() - nodes_role()
    assert {operations.RUN_COMMAND, POLL_ACTION} <= nodes_role() - sweep_role()
    assert not [action for action in sweep_role() if "Microsoft.Compute" in action and not action.endswith("/read")]


def test_the_result_of_a_command_is_read_with_the_action_that_the_sdk_needs_for_it() -> None:
    assert action_of(*request_of(Call(CONTAINERS, "managed_clusters", "get_command_result"))) == INVOKE_RESULT


def test_a_missing_role_is_named_by_what_the_calls_need() -> None:
    named = {
        operations.READ_CLUSTER,
        operations.READ_INSTANCE,
        operations.READ_VM,
        operations.RUN_COMMAND,
        operations.RUN_VM_COMMAND,
        POLL_ACTION,
        INVOKE,
        INVOKE_RESULT,
    }
    assert named == {action for call in all_calls() for action in actions_of(call)}


def test_no_request_is_made_by_hand_but_by_the_one_function_for_it() -> None:
    found = {request for path in sources() for request in own_requests(path.read_text(), str(path.relative_to(ROOT)))}
    # A blob is read with a data role on its container, not with an action of Resource Manager's.
    assert found - {("shared/azure/blobs.py", "read_blob")} == {
        ("shared/azure/arm.py", "_send"),
        ("shared/azure/arm.py", "send"),
    }


@pytest.mark.parametrize(
    ("group", "method", "action"),
    [
        ("virtual_machine_scale_sets", "begin_delete", "Microsoft.Compute/virtualMachineScaleSets/delete"),
        ("virtual_machine_scale_sets", "begin_create_or_update", "Microsoft.Compute/virtualMachineScaleSets/write"),
        (
            "virtual_machine_scale_set_vms",
            "begin_reimage",
            "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/reimage/action",
        ),
    ],
)
def test_a_new_call_would_be_noticed(group: str, method: str, action: str) -> None:
    found = calls(f"await arm.compute(node.subscription).{group}.{method}(1, 2)", "x.py")
    assert found == {Call(COMPUTE, group, method)}
    (call,) = found
    needed = {name.lower() for name in actions_of(call)}
    assert action.lower() in needed
    assert needed - {name.lower() for name in granted()}


def test_what_cannot_be_followed_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="one chain"):
        calls("client = arm.compute(subscription)\nclient.virtual_machine_scale_sets.list()", "x.py")
    with pytest.raises(pytest.fail.Exception, match="no such operation"):
        actions_of(Call(COMPUTE, "virtual_machine_scale_sets", "no_such_method"))


def test_every_operation_has_the_action_that_its_address_asks_for() -> None:
    for name, operation in operations_of_the_code().items():
        # A query has no action of its own: it shows what the identity may read.
        if name != "QUERY":
            assert operation.action == action_of(operation.method, operation.path)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("SUBSCRIPTIONS", Call(SUBSCRIPTIONS, "subscriptions", "list")),
        ("SCALE_SETS", Call(COMPUTE, "virtual_machine_scale_sets", "list")),
        ("INSTANCES", Call(COMPUTE, "virtual_machine_scale_set_vms", "list")),
        ("VMS", Call(COMPUTE, "virtual_machines", "list")),
        ("VM_STATES", Call(COMPUTE, "virtual_machines", "list_all")),
        ("CREDENTIALS", Call(CONTAINERS, "managed_clusters", "list_cluster_user_credentials")),
    ],
)
def test_an_operation_is_the_one_that_the_sdk_knows(name: str, call: Call) -> None:
    operation = operations_of_the_code()[name]
    method, path = request_of(call)
    assert (operation.method, shape(operation.path)) == (method, shape(path))


def test_no_wildcards_and_no_data_actions() -> None:
    assert not [action for action in granted() if "*" in action]


def test_every_way_of_giving_access_gives_the_same_roles() -> None:
    """The role definitions of all predicted deployments, each told by what it is for."""
    seen: set[str] = set()
    for deployment in [*APPS, *ACCESS]:
        for role in deployment.snapshot.of("Microsoft.Authorization/roleDefinitions"):
            name = role.at("properties.roleName")
            sweep = name.startswith("AKS Kubelet Guard sweep (")
            (permission,) = role.at("properties.permissions")
            invoke = deployment.given("grantSweep", deployment.given("sweep", False))
            api = deployment.given("grantSweepApi", deployment.given("sweepApi", False))
            expected = sweep_role(invoke, api) if sweep else nodes_role()
            assert set(permission) == {"actions", "notActions"}, "no data actions"
            assert permission["notActions"] == []
            assert sorted(permission["actions"]) == sorted(expected), f"{deployment.combination.name}: {name}"
            assert role.at("properties.assignableScopes") == [role.scope]
            assert name.endswith(f"({role.scope.rsplit('/', 1)[1]})"), "a role's name is unique in its tenant"
            seen.add(f"{role.scope.split('/')[1]}{' sweep' if sweep else ''}")
    assert seen == {"subscriptions", "subscriptions sweep", "providers", "providers sweep"}


def test_each_role_is_given_where_it_is_defined_and_only_if_it_was_asked_for() -> None:
    for deployment in ACCESS:
        snapshot = deployment.snapshot
        roles = {role.id: role for role in snapshot.of("Microsoft.Authorization/roleDefinitions")}
        assignments = snapshot.of("Microsoft.Authorization/roleAssignments")
        assert {(each.scope, each.at("properties.roleDefinitionId")) for each in assignments} == {
            (role.scope, id_) for id_, role in roles.items()
        }
        for each in assignments:
            assert each.at("properties.principalId") == deployment.given("principalId", None)
            assert each.at("properties.principalType") == "ServicePrincipal"
        sweeps = [" sweep (" in role.at("properties.roleName") for role in roles.values()]
        assert any(sweeps) == bool(deployment.given("sweep", False) or deployment.given("sweepApi", False))
        assert all(sweeps) != deployment.given("nodes", True)

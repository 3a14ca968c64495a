"""Finding clusters and nodes, and run command on nodes, within Azure's rate limits."""

from shared.azure.client import Azure
from shared.azure.discovery import leaves_out, precheck
from shared.azure.graph import GraphAnswer, ScopeError
from shared.azure.invoke import Invoked
from shared.azure.problems import SubscriptionError
from shared.azure.rights import DenyAssignment, Lock, Permission, PolicyAssignment, Principal, SignedIn
from shared.azure.runcommand import AWAY_SECONDS, MOST_WAIT, CommandResult, Ended, Pending
from shared.azure.throttle import Stats, update_bucket

__all__ = [
    "AWAY_SECONDS",
    "MOST_WAIT",
    "Azure",
    "CommandResult",
    "DenyAssignment",
    "Ended",
    "GraphAnswer",
    "Invoked",
    "Lock",
    "Pending",
    "Permission",
    "PolicyAssignment",
    "Principal",
    "ScopeError",
    "SignedIn",
    "Stats",
    "SubscriptionError",
    "leaves_out",
    "precheck",
    "update_bucket",
]

"""The second witness: a cluster's kubelets, asked from within it for the configuration that they run with."""

from shared.cluster.answers import Json, NodeConfig, Sweep, doubled, parse_sweep, resource_id
from shared.cluster.objects import failing_pods, heard, known_machines, read_node, troubled
from shared.cluster.sweep import ACCOUNT, NODE_SECONDS, NODES_A_CALL, Way, check_settings, node_name, sweep_script
from shared.cluster.troubles import sweep_problem

__all__ = [
    "ACCOUNT",
    "NODES_A_CALL",
    "NODE_SECONDS",
    "Json",
    "NodeConfig",
    "Sweep",
    "Way",
    "check_settings",
    "doubled",
    "failing_pods",
    "heard",
    "known_machines",
    "node_name",
    "parse_sweep",
    "read_node",
    "resource_id",
    "sweep_problem",
    "sweep_script",
    "troubled",
]

"""The second witness: a cluster's kubelets, asked from within it for the configuration that they run with."""

from shared.cluster.answers import Json, NodeConfig, Sweep, doubled, parse_sweep, resource_id
from shared.cluster.sweep import ACCOUNT, NODES_A_CALL, Way, node_name, sweep_script

__all__ = [
    "ACCOUNT",
    "NODES_A_CALL",
    "Json",
    "NodeConfig",
    "Sweep",
    "Way",
    "doubled",
    "node_name",
    "parse_sweep",
    "resource_id",
    "sweep_script",
]

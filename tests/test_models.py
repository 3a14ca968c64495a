"""What identifies a machine."""

from __future__ import annotations

from dataclasses import replace

from shared.runs.model import batch as batches
from shared.runs.model.batch import Batch, OpenNode
from tests.support.findings import node


def test_a_node_is_known_by_its_resource_id() -> None:
    one = node(7)
    assert one.id == (
        "/subscriptions/5f1d6c1e-8a4b-4d0e-9a53-3c2b7f60a9d1/resourceGroups/MC_rg_aks/providers/Microsoft.Compute"
        "/virtualMachineScaleSets/vmss/virtualMachines/7"
    )
    assert not one.single
    vm = replace(one, id="", scale_set="", instance_id="aks-vms-1")
    assert vm.id.endswith("/resourceGroups/MC_rg_aks/providers/Microsoft.Compute/virtualMachines/aks-vms-1")
    assert vm.single
    assert vm.key == vm.id.lower()
    # It is a field: what Azure calls a machine stays, whatever else is known of it.
    assert replace(one, id=vm.id, name="another").key == vm.key


def test_a_batch_of_before_nodes_had_their_id_is_read() -> None:
    text = batches.to_text(Batch("westeurope", 1, (OpenNode(node(7)),)))
    old = text.replace(f',"id":"{node(7).id}"', "")
    assert old != text
    assert batches.from_text(old, "x").nodes[0].node == node(7)

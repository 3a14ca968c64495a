"""Nodes as folders, and the shells that a node may have."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.folder_node import FolderNode
from tests.support.require import require


@pytest.fixture
def folder_node(tmp_path: Path) -> FolderNode:
    """A node with AKS's unit, an environment file and a config file, running."""
    node = FolderNode(tmp_path / "node")
    node.write(
        "/etc/systemd/system/kubelet.service",
        "[Service]\nEnvironmentFile=/etc/default/kubelet\n"
        'ExecStart=/opt/bin/kubelet --node-labels="${KUBELET_NODE_LABELS}" $KUBELET_CONFIG_FILE_FLAGS $KUBELET_FLAGS\n',
    )
    node.write(
        "/etc/systemd/system/kubelet.service.d/10-componentconfig.conf",
        '[Service]\nEnvironment="KUBELET_CONFIG_FILE_FLAGS=--config /etc/default/kubeletconfig.json"\n',
        0o600,
    )
    node.write("/etc/default/kubelet", "KUBELET_FLAGS=--v=2\nKUBELET_NODE_LABELS=agentpool=np,team=payments\n", 0o600)
    node.write(
        "/etc/default/kubeletconfig.json",
        '{"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}',
        0o600,
    )
    node.unit("/etc/systemd/system/kubelet.service.d/10-componentconfig.conf")
    node.process(
        "/opt/bin/kubelet",
        "--node-labels=agentpool=np,team=payments",
        "--config",
        "/etc/default/kubeletconfig.json",
        "--v=2",
    )
    return node


@pytest.fixture(params=["dash", "bash", "busybox"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[tuple[str, ...], str]:
    """A shell command and the PATH with the tools that go with it (all of busybox's own for busybox)."""
    name: str = request.param
    found = shutil.which(name)
    require(found is not None, f"{name} is not installed")
    assert found is not None
    if name != "busybox":
        return (found,), os.environ["PATH"]
    applets = tmp_path / "applets"
    applets.mkdir()
    subprocess.run([found, "--install", "-s", str(applets)], check=True)
    return (found, "sh"), str(applets)

"""What several of these tests share."""

from __future__ import annotations

KIND = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n"
JSON_KIND = '"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"'
CONFIG = "/etc/default/kubeletconfig.json"
DROPINS = "/etc/kubernetes/kubelet.conf.d"
# where the measured nodes have ca.crt, kubeletserver.crt and kubeletserver.key
CERTIFICATES = "/etc/kubernetes/certs/"

#!/bin/sh
# kubelet.sh VERSION FILE [COMPONENT]: a real kubelet (or kube-apiserver, kubectl) from its published Go modules, static,
# reporting itself as its release does. VERSION as in v1.37.2. Needs Go and the Go module proxy; 3 minutes on two cores, 2 GB of memory.
set -eu
version=$1 minor=${1#v1.} component=${3:-kubelet}
case $2 in /*) out=$2 ;; *) out=$PWD/$2 ;; esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# shellcheck source=/dev/null
. "$here/module.sh"
kubernetes_module "$version"
stamp=k8s.io/component-base/version
go build -trimpath -o "$out" \
    -ldflags "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}" \
    "k8s.io/kubernetes/cmd/$component"

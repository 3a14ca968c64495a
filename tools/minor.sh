#!/bin/sh
# minor.sh VERSION: what a Kubernetes minor's kubelet knows (flags, fields, gates, defaults), made from its published Go
# modules, into shared/kubelet/data/1.NN.json. VERSION as in v1.37.2. Needs Go and the Go module proxy; some minutes.
set -eu
patch=${1#v1.}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/minor/main.go" "$work/"
cd "$work"
# shellcheck source=/dev/null
. "$here/module.sh"
kubernetes_module "$1"
go run . "1.$patch" >made.json
mv made.json "$here/../shared/kubelet/data/1.${patch%%.*}.json"

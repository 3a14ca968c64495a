#!/bin/sh
# minor.sh VERSION: what a Kubernetes minor's kubelet knows (flags, fields, gates, defaults), made from its published Go
# modules, into shared/kubelet/data/1.NN.json. VERSION as in v1.37.2. Needs Go and the Go module proxy; some minutes.
set -eu
version=$1 patch=${1#v1.}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/minor/main.go" "$work/"
cd "$work"
export GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0

module=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
# The module takes its staging modules from a folder that is not in it: take the published ones of the same release.
{
    printf 'module minor\n\ngo 1.26\n\nrequire k8s.io/kubernetes %s\n' "$version"
    sed -n 's|^\t\{0,1\}\(replace \)\{0,1\}\(k8s.io/[a-z-]*\) => ./staging.*|replace \2 => \2 v0.'"$patch"'|p' "$module/go.mod"
} >go.mod
go run . "1.$patch" >made.json
mv made.json "$here/../shared/kubelet/data/1.${patch%%.*}.json"

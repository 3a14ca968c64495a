#!/bin/sh
# tools/build-kubelet.sh VERSION FILE: builds the kubelet of a Kubernetes release (such as 1.36.3) from its published Go
# modules into FILE, static and stripped, and it gives VERSION as its own. Needs Go and a Go module proxy; a few minutes.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 VERSION FILE" >&2; exit 64; }
version=${1#v}
folder=$(cd "$(dirname "$2")" && pwd)
file=$folder/$(basename "$2")
command -v go >/dev/null || { echo "Go is not installed: a kubelet cannot be built" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export CGO_ENABLED=0 GOFLAGS=-mod=mod
go mod init kubelet.build 2>/dev/null
go mod edit -require="k8s.io/kubernetes@v$version"
# Its own go.mod points at folders beside it, which are not in the published module. Each is published as a module of
# its own too, as 0.MINOR.PATCH.
go mod download -json "k8s.io/kubernetes@v$version" >module.json
awk '/=> \.\/staging\// { for (i = 1; i < NF; i++) if ($(i + 1) == "=>") print $i }' \
    "$(sed -n 's/^[[:space:]]*"GoMod": "\(.*\)",*$/\1/p' module.json)" >staging
[ -s staging ] || { echo "k8s.io/kubernetes $version names no modules of its own" >&2; exit 1; }
while IFS= read -r module; do
    go mod edit -replace="$module=$module@v0.${version#1.}"
done <staging

stamp=k8s.io/component-base/version
minor=${version#1.}
go build -trimpath -o "$file.new" \
    -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}" \
    k8s.io/kubernetes/cmd/kubelet
mv "$file.new" "$file"

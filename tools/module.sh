# Sourced: kubernetes_module VERSION (as in v1.37.2) makes the current folder a Go module that links that release.

export GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0

kubernetes_module() {
    module=$(go mod download -json "k8s.io/kubernetes@$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    # The module takes its staging modules from a folder that is not in it: take the published ones of the same release.
    {
        printf 'module linked\n\ngo 1.26\n\nrequire k8s.io/kubernetes %s\n' "$1"
        sed -n 's|^\t\{0,1\}\(replace \)\{0,1\}\(k8s.io/[a-z-]*\) => ./staging.*|replace \2 => \2 v0.'"${1#v1.}"'|p' \
            "$module/go.mod"
    } >go.mod
}

#!/bin/sh
# Builds and lints the templates with the real Bicep compiler; a warning fails. Does nothing where bicep is not on PATH.
set -eu
cd "$(dirname "$0")"

if ! command -v bicep >/dev/null; then
    echo "bicep is not on PATH: the templates are parsed by the tests, but not compiled"
    exit 0
fi

quiet() { # quiet COMMAND...: runs it; fails where it fails or says anything on stderr
    said=$("$@" 2>&1 >/dev/null) || { echo "$said" >&2; echo "failed: $*" >&2; return 1; }
    [ -z "$said" ] || { echo "$said" >&2; echo "warnings: $*" >&2; return 1; }
}

for entry in main.bicep access-subscription.bicep access-management-group.bicep; do
    quiet bicep build "$entry" --stdout
    quiet bicep lint "$entry"
done
quiet bicep build-params main.bicepparam --stdout

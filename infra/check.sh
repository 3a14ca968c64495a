#!/bin/sh
# Lets Kusto's own parser read the queries of the alerts and the workbook, and builds and lints the templates with the
# real Bicep compiler, where a warning fails. What is not installed is left out; REQUIRE_ALL=1 requires node and npm.
set -eu
cd "$(dirname "$0")"

sh ../scripts/kusto/check.sh queries/*.kql workbook.json

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

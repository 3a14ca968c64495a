#!/bin/sh
# Lets Kusto's own parser read the queries of the alerts and the workbook, and the real Bicep compiler the templates,
# where a warning or another format fails. What is not installed is left out; REQUIRE_ALL=1 requires it.
set -eu
cd "$(dirname "$0")/.."

sh scripts/kusto/check.sh infra/queries/*.kql infra/workbook.json

if ! command -v bicep >/dev/null; then
    echo "bicep is not on PATH: the templates are not compiled"
    [ -z "${REQUIRE_ALL:-}" ]
    exit
fi
exec "${PYTHON:-python3}" -m tools.bicep check

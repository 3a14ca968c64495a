#!/bin/sh
# Lets Kusto's own parser read queries: check.sh FILE... (see check.js). Installs it beside this script where its
# lockfile is not the one that was installed. Without node and npm nothing is checked, and REQUIRE_ALL=1 fails.
set -eu
here=$(dirname "$0")

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "node and npm are not on PATH: the queries are not read by Kusto's parser"
    [ -z "${REQUIRE_ALL:-}" ]
    exit
fi

if ! cmp -s "$here/package-lock.json" "$here/node_modules/installed-lock.json"; then
    (cd "$here" && npm ci --silent --ignore-scripts --no-audit --no-fund)
    cp "$here/package-lock.json" "$here/node_modules/installed-lock.json"
fi
exec node "$here/check.js" "$@"

#!/bin/sh
# The serverless app on this machine, in the real Functions host: needs Azure Functions Core Tools v4 (func) and Azurite.
# local.settings.json (made from the example where it is not there) says where its Azure is and what it may do.
set -eu
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
for tool in func azurite; do
    command -v "$tool" >/dev/null || {
        echo "$tool is not installed: npm install --global azure-functions-core-tools@4 azurite" >&2
        exit 1
    }
done
[ -f local.settings.json ] || cp local.settings.json.example local.settings.json
storage=$(mktemp -d)
trap 'kill "$azurite" 2>/dev/null; wait "$azurite" 2>/dev/null; rm -rf "$storage"' EXIT
trap 'exit 130' INT TERM
azurite --silent --skipApiVersionCheck --location "$storage" &
azurite=$!
# func takes the Python that is first on the path.
PATH="$PWD/$BIN:$PATH" func start

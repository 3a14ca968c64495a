#!/bin/sh
# The main job on a small Azure on this machine: starts the sandbox, audits its fleet, plans, fixes, audits again, stops it.
# The variables that the sandbox prints are all that tells the product where its Azure is.
set -eu
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
work=$(mktemp -d)
trap 'kill "$sandbox" 2>/dev/null; wait "$sandbox" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

"$BIN/python" -m sandbox serve --fleet fleets/demo.yaml --env-file "$work/env" >"$work/sandbox.log" 2>&1 &
sandbox=$!
waited=0
until [ -s "$work/env" ]; do
    kill -0 "$sandbox" 2>/dev/null || { cat "$work/sandbox.log" >&2; exit 1; }
    [ "$waited" -lt 300 ] || { echo "the sandbox did not start" >&2; exit 1; }
    waited=$((waited + 1))
    sleep 0.1
done
# shellcheck source=/dev/null
. "$work/env"
export GUARD_COMMAND_SECONDS=2 GUARD_SETTLE_SECONDS=2 GUARD_STORE="$work/runs.db"

# A command as a person would type it; its exit status is shown, not obeyed: findings are not a failure of the demo.
show() {
    printf '\n\033[1m$ kubelet-guard %s\033[0m\n' "$*"
    status=0
    "$BIN/kubelet-guard" "$@" || status=$?
    printf '(exit status %s)\n' "$status"
    [ "$status" -le 2 ]
}
show audit
show plan --out "$work/plan.json"
export GUARD_ALLOW_FIX=true # the second key
show fix --plan "$work/plan.json" --pause 0 --yes
export GUARD_FIX_CONTROLS='3.1.1 3.1.3 3.1.4 3.2.1 3.2.4 3.2.6 3.2.7' # a fix touches 3.2.6 alone, unless it is told more
show fix --pause 0 --yes
show audit

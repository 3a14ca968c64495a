#!/bin/sh
# Runs ShellCheck over the project's shell scripts. Those in shared/node are fragments that Python puts together, and
# the tests check them as they are sent (tests/node).
set -eu
cd "$(dirname "$0")/.."
git ls-files -co --exclude-standard '*.sh' .ci/run sandbox/standins | grep -v '^shared/node/' | while IFS= read -r file; do
    case $(head -c 2 "$file") in '#!') shellcheck "$file" ;; esac
done

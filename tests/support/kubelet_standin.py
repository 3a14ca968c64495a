#!/usr/bin/python3
"""A stand-in for the kubelet on a real systemd: it decides as shared/kubelet does whether to start.

It is installed as /opt/bin/kubelet in a machine that shows this repository at REPOSITORY, read-only. It reads the files
that its arguments name, refuses what a kubelet would refuse (exit 1, with the error), and else prints the file that
STANDIN_LOG names and serves healthz at the address that it resolves. `--version` it answers as a kubelet of VERSION.
With STANDIN_IGNORES_TERM in its environment it does not end on SIGTERM.
"""

import ctypes
import http.server
import os
import signal
import sys
from pathlib import Path

REPOSITORY = "/opt/kubelet-guard"
VERSION = "1.36.3"


class Healthz(http.server.BaseHTTPRequestHandler):
    """Says ok, as a healthy kubelet does."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
        self.wfile.write(b"ok" if self.path == "/healthz" else b"")


def files_named(argv: list[str]) -> dict[str, str]:
    """Path and text of the config file and of everything in the drop-in directory."""
    from shared.kubelet import config_paths

    named = config_paths(argv)
    paths = [Path(named.config)] if named.config else []
    if named.config_dir:
        paths += [path for path in Path(named.config_dir).rglob("*") if path.is_file()]
    return {str(path): path.read_text(errors="surrogateescape") for path in paths if path.is_file()}


def hide_interpreter() -> None:
    """Make /proc/PID/cmdline begin with this program's path (with more slashes, as the length must stay)."""
    arguments = int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[45])  # arg_start, see proc(5)
    interpreter = len(Path("/proc/self/cmdline").read_bytes().partition(b"\0")[0])
    path = "/".ljust(interpreter + 1, "/") + sys.argv[0]
    ctypes.memmove(arguments, path.encode(), len(path))


def main() -> None:
    """Start as a kubelet with these arguments would."""
    if sys.argv[1:] == ["--version"]:
        print(f"Kubernetes v{VERSION}")
        return
    hide_interpreter()
    sys.path.insert(0, REPOSITORY)
    from shared.kubelet import resolve

    resolution = resolve(sys.argv, files_named(sys.argv), version=VERSION)
    if not resolution.accepted:
        sys.exit(f"run: {resolution.error}")
    authority = str(resolution.value("authentication.x509.clientCAFile"))
    if authority and not Path(authority).is_file():
        sys.exit(f"run: unable to load client CA file {authority}: open {authority}: no such file or directory")
    if "STANDIN_IGNORES_TERM" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if log := os.environ.get("STANDIN_LOG"):
        print(Path(log).read_text(), end="", flush=True)
    where = (str(resolution.value("healthzBindAddress")), int(str(resolution.value("healthzPort"))))
    server = http.server.HTTPServer(where, Healthz)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""What a real kubelet makes of a command line and its files, and where `shared.kubelet` says otherwise.

`python -m tools.measure KUBELET CASES [--rows FILE]` runs each case of CASES (as tools.cases prints them; - is
standard input) and prints those that differ. A kubelet without a container runtime starts, logs the configuration that
it ended up with, and stops; each one runs in a root, a mount, a process and a network namespace of its own, so this
needs root and `unshare`. --rows keeps what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import yaml

from shared.kubelet import Resolution, resolve
from tools.cases import CA, DROPINS, KUBECONFIG

# First on the command line, so that what a case says comes after it.
_ADDED: Final = ("--v=5", "--root-dir=/run/root", "--cert-dir=/run/pki", "--fail-cgroupv1=false")
_MADE_CERTIFICATE: Final = "/run/pki/kubelet."
# A case's own --v must not take the configuration from the log; only the text format takes this flag.
_SERVER_LOG: Final = "--vmodule=server=5"
_CONFIGURATION: Final = re.compile(r"\"(?:Effective )?KubeletConfiguration\" config(?:uration)?=<\n((?:\t.*\n)+) >")
_JSON_CONFIGURATION: Final = re.compile(
    r'"msg":"(?:Effective )?KubeletConfiguration".*?"config(?:uration)?":(".*?(?<!\\)")'
)
# An error of several lines stands in angle brackets.
_FAILED: Final = re.compile(
    r'(?:"command failed" err="|"command failed","err":")(.*)"|"command failed" err=<\n((?:\t.*\n)+) >'
)
# How a kubelet ends that has nothing against its configuration, but neither an API server nor a container runtime.
_ENDS: Final = re.compile(
    r"failed to run Kubelet: (?:no client provided|validate service connection|unable to load bootstrap)"
)
_SECONDS: Final = 20
_KUBECONFIG: Final = """apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: x}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
"""


@dataclass(frozen=True)
class Measured:
    """`config` are the settings as the kubelet logged them; None where it refused to start, or did not say."""

    accepted: bool
    error: str | None
    config: Mapping[str, Any] | None


class Node:
    """A root folder for one kubelet at a time."""

    def __init__(self, kubelet: Path, parent: Path, number: int) -> None:
        self.root = parent / str(number)
        for folder in ("etc/kubernetes/certs", "etc/default", "proc", "sys", "dev", "run/root", "run/pki", "tmp"):
            (self.root / folder).mkdir(parents=True)
        shutil.copy(kubelet, self.root / "kubelet")
        certs = self.root / "etc/kubernetes/certs"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
             "365", "-subj", "/CN=node", "-keyout", certs / "kubeletserver.key", "-out", certs / "kubeletserver.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        shutil.copy(certs / "kubeletserver.crt", self.inside(CA))
        for name in ("crt", "key"):  # a kubelet that finds none makes one, for a second
            shutil.copy(certs / f"kubeletserver.{name}", self.root / f"run/pki/kubelet.{name}")
        self.inside(KUBECONFIG).write_text(_KUBECONFIG)

    def inside(self, path: str) -> Path:
        return self.root / os.path.normpath(path).lstrip("/")

    def measure(self, argv: list[str], files: Mapping[str, str]) -> Measured:
        shutil.rmtree(self.inside(DROPINS), ignore_errors=True)
        shutil.rmtree(self.inside("/etc/default"))
        self.inside("/etc/default").mkdir()
        self.inside(DROPINS).mkdir(parents=True)
        for path, text in files.items():
            place = self.inside(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode("utf-8", "surrogateescape"))
        enter = 'mount -t proc proc "$0/proc" && mount --rbind /sys "$0/sys" && exec chroot "$0" /kubelet "$@"'
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, str(self.root)]
        try:
            ran = subprocess.run(
                [*command, *argv[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=_SECONDS, check=False,
            )  # fmt: skip
            log = ran.stdout
        except subprocess.TimeoutExpired as late:
            log = late.stdout or b""
        return read_log(log.decode("utf-8", "surrogateescape"))


def read_log(log: str) -> Measured:
    found = _CONFIGURATION.search(log)
    config: Mapping[str, Any] | None = None
    if found is not None:
        text = found[1].replace("\n\t", "\n")[1:]
        config = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
    elif (in_json := _JSON_CONFIGURATION.search(log)) is not None:
        text = cast(str, json.loads(in_json[1]))
        config = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
    failed = _FAILED.findall(log)
    error = "".join(failed[-1]).strip() if failed else ("" if config is not None else log[-500:])
    if config is not None and (not error or _ENDS.match(error)):
        return Measured(True, None, config)
    return Measured(bool(_ENDS.match(error)), None if _ENDS.match(error) else error, None)


def full_argv(case: Mapping[str, Any]) -> list[str]:
    text = "".join((*case["argv"], *case["files"].values()))
    added = [*_ADDED, *([] if "json" in text.replace(".json", "") or "vmodule" in text else [_SERVER_LOG])]
    return [case["argv"][0], *added, *case["argv"][1:]]


def folded(value: Any) -> Any:
    """A logged value by names without regard to case: until 1.36 the log has Go's field names."""
    if isinstance(value, dict):
        return {("resolvconf" if name == "ResolverConfig" else name.lower()): below for name, below in value.items()}
    return value


def differences(found: Resolution, logged: Mapping[str, Any]) -> Iterator[str]:
    for path in sorted(set(found.settings()) - {"kind", "apiVersion"}):
        at: Any = logged
        for part in path.split("."):
            at = folded(at).get(part.lower()) if isinstance(at, dict) else None
        ours: Any = found.value(path)
        if path == "staticPodURLHeader":  # masked in the log
            ours, at = sorted(ours or {}), sorted(at or {})
        if path in ("tlsCertFile", "tlsPrivateKeyFile") and not at and str(ours).startswith(_MADE_CERTIFICATE):
            continue  # from 1.37 on the log comes before the kubelet fills them in
        if plain(ours) != plain(at):
            yield f"{path}: ours {ours!r}, the kubelet's {at!r}"


def plain(value: Any) -> Any:
    """What two logs write differently: a value that is empty is left out in one of them."""
    if isinstance(value, dict):
        return {name.lower(): kept for name, below in value.items() if (kept := plain(below)) is not None} or None
    if isinstance(value, list):
        return [plain(item) for item in value] or None
    if isinstance(value, str) and "\ufffd" not in value:
        return value if value not in ("", "0s") else None
    return None if value in (0, None, False) else value


def ours(case: Mapping[str, Any], version: str) -> Resolution:
    files = case["files"]
    there = {CA, KUBECONFIG, f"{CA.rpartition('/')[0]}/kubeletserver.crt", f"{CA.rpartition('/')[0]}/kubeletserver.key"}
    return resolve(full_argv(case), files, version=version, exists=lambda path: path in there or path in files)


def compare(case: Mapping[str, Any], measured: Measured, version: str) -> list[str]:
    found = ours(case, version)
    if found.limit:
        return [f"limit: {found.limit}"]
    if found.accepted != measured.accepted:
        return [
            f"ours {'accepted' if found.accepted else found.error!r}, the kubelet's {measured.error or 'accepted'!r}"
        ]
    return list(differences(found, measured.config)) if found.accepted and measured.config is not None else []


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kubelet", type=Path)
    parser.add_argument("cases")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    said = subprocess.run([options.kubelet, "--version"], check=True, capture_output=True, text=True).stdout
    version = said.split()[-1].removeprefix("v")
    text = sys.stdin.read() if options.cases == "-" else Path(options.cases).read_text("utf-8")
    cases = [json.loads(line) for line in text.splitlines()]
    kinds: Counter[str] = Counter()
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as parent, ThreadPoolExecutor(options.jobs) as pool:
        idle = [Node(options.kubelet, Path(parent), number) for number in range(options.jobs)]

        def measured(case: Mapping[str, Any]) -> Measured:
            node = idle.pop()
            try:
                return node.measure(full_argv(case), case["files"])
            finally:
                idle.append(node)

        for case, real in zip(cases, pool.map(measured, cases), strict=True):
            kinds["accepted" if real.accepted else "refused"] += 1
            rows.append(
                json.dumps(
                    {**case, "version": version, "accepted": real.accepted, "error": real.error, "config": real.config}
                )
            )
            differ = compare(case, real, version)
            if differ:
                kinds["differ"] += 1
                print(json.dumps({"differ": differ, **case}), flush=True)
    if options.rows is not None:
        options.rows.write_text("".join(f"{row}\n" for row in rows), "utf-8")
    print(f"{version}: {len(cases)} cases, {dict(kinds)}", file=sys.stderr)
    return 1 if kinds["differ"] else 0


if __name__ == "__main__":
    sys.exit(main())

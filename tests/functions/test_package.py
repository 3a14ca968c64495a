"""The zip that is deployed without a build in Azure: what is in it, that it starts, and how it gets there."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from shared import __version__
from tests.support.once import once
from tests.support.require import require
from tools import package, publish

ROOT = Path(__file__).parents[2]
STORAGE = {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}
HOST_SUFFIXES = (".cpython-312-x86_64-linux-gnu.so", ".abi3.so")


def built(python: str, folder: Path) -> package.Package:
    """The zip for this minor, or a skip where there is no such Python, or where its packages cannot be had."""
    require(package.interpreter(python) is not None, f"there is no Python {python} here")
    try:
        return package.make(python, folder / f"guard-{python}.zip")
    except package.PackageError as error:
        require("pip could not install" not in str(error), str(error))
        raise


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> package.Package:
    """The zip for the Python that infra/ deploys."""
    return once(tmp_path_factory, "package", partial(built, package.pythons()[0]))


def test_the_app_s_own_files() -> None:
    """What azd uploads for a remote build, and what the documented `git archive` takes: the same, and nothing else."""
    tracked = subprocess.run(
        ["git", "ls-files", "function_app.py", "host.json", "requirements.txt", "shared"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert package.own_files() == sorted(tracked.stdout.splitlines())
    assert "HEAD function_app.py host.json requirements.txt shared\n" in (ROOT / "docs" / "deploying.md").read_text()


def test_a_python_that_is_not_deployed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert package.main(["--python", "3.9", "--out", str(tmp_path / "x.zip")]) == 1
    assert "Python 3.9 is none that main.bicep deploys: 3.11, 3.12, 3.13" in capsys.readouterr().err


def test_a_python_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another minor's pip would choose by its own: azure-functions 1.x for 3.13, which is not what runs there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    other = "3.12" if sys.version_info[1] != 12 else "3.13"
    assert package.interpreter(other) is None
    with pytest.raises(package.PackageError, match=f"Python {other} is not on this machine"):
        package.make(other, tmp_path / "x.zip")


@pytest.mark.slow
def test_what_is_in_it(deployed: package.Package) -> None:
    with zipfile.ZipFile(deployed.path) as archive:
        names = archive.namelist()
        stamp = json.loads(archive.read(package.STAMP))
        assert archive.testzip() is None
        assert archive.read("function_app.py") == (ROOT / "function_app.py").read_bytes()
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}
    own = [name for name in names if not name.startswith(package.SITE)]
    assert own == sorted([*package.own_files(), package.STAMP])
    site = [name.removeprefix(f"{package.SITE}/") for name in names if name.startswith(package.SITE)]
    assert not [name for name in site if "__pycache__" in name or name.split("/")[0] in ("bin", "tests", "pip")]
    compiled = [name for name in site if name.endswith(".so")]
    assert "pydantic_core/_pydantic_core.cpython-312-x86_64-linux-gnu.so" in compiled
    assert not [name for name in compiled if not name.endswith(HOST_SUFFIXES)], "for one Python and one machine alone"
    assert (stamp["version"], stamp["python"]) == (__version__, "3.12")
    assert len(stamp["commit"].removesuffix("+changes")) == 40
    assert stamp["packages"]["azure_functions"].startswith("1."), "2 is for Python 3.13 and later"
    assert 0 < sum(deployed.parts.values()) < deployed.size < package.LIMIT_MB * 1_000_000 < 10**9
    assert deployed.unpacked > 2 * deployed.size


@pytest.mark.slow
def test_it_starts_with_all_functions(deployed: package.Package) -> None:
    runs = package.interpreter(deployed.python)
    assert runs is not None
    names = package.functions_in(deployed, runs)
    assert names == package.functions_here()
    assert {"health", "scheduled_run", "start_audit", "watchdog"} <= set(names)


# Functions as Microsoft's own worker for Python 3.13 finds and registers them. What it would send of them is kept as it
# is, for want of its protocol's classes.
WORKER = """
import json, sys, types
worker, root = sys.argv[1:]
sys.path[:] = [f"{root}/.python_packages/lib/site-packages", worker, *sys.path, root]
from azure_functions_runtime.bindings.meta import load_binding_registry
from azure_functions_runtime.functions import Registry
from azure_functions_runtime.loader import index_function_app, process_indexed_function
class Binding(types.SimpleNamespace):
    out, inout = 1, 2
protocol = types.SimpleNamespace(BindingInfo=Binding, RpcFunctionMetadata=types.SimpleNamespace)
load_binding_registry()
found, _ = process_indexed_function(protocol, Registry(), index_function_app(f"{root}/function_app.py"), root)
print(json.dumps(sorted(item.name for item in found)))
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that the Functions host's worker for Python 3.13 is."""
    folder, runs = tmp_path_factory.mktemp("worker"), package.interpreter("3.13")
    require(runs is not None, "there is no Python 3.13 here")
    pip = [sys.executable, "-m", "pip", "--python", str(runs), "install", "--quiet", f"--target={folder}"]
    done = subprocess.run([*pip, "azure-functions-runtime>=1.3,<2"], capture_output=True, text=True)
    require(done.returncode == 0, f"pip could not install azure-functions-runtime: {done.stderr[-500:]}")
    return folder


def indexed(worker: Path, zipped: Path, folder: Path) -> list[str]:
    """What the worker makes of a zip."""
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(folder)
    command = [str(package.interpreter("3.13")), "-I", "-S", "-c", WORKER, str(worker), str(folder)]
    done = subprocess.run(command, cwd=folder, env=dict(STORAGE), capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


@pytest.mark.slow
def test_for_another_python(worker: Path, tmp_path: Path) -> None:
    """Packages are chosen by the target's own rules: from 3.13 on another azure-functions."""
    other = built("3.13", tmp_path)
    runs = package.interpreter("3.13")
    assert runs is not None
    with zipfile.ZipFile(other.path) as archive:
        stamp = json.loads(archive.read(package.STAMP))
    assert (stamp["python"], stamp["packages"]["azure_functions"][:2]) == ("3.13", "2.")
    here = package.functions_here()
    assert package.functions_in(other, runs) == here
    assert indexed(worker, other.path, tmp_path / "app") == here


@pytest.mark.slow
def test_the_worker_of_another_python_finds_what_says_so(
    worker: Path, deployed: package.Package, tmp_path: Path
) -> None:
    assert indexed(worker, deployed.path, tmp_path) == ["health", "live"]


@pytest.mark.slow
def test_the_worker_finds_what_says_that_packages_are_missing(worker: Path, tmp_path: Path) -> None:
    """What comes of sending the sources where nobody builds."""
    with zipfile.ZipFile(tmp_path / "sources.zip", "w") as archive:
        for name in package.own_files():
            archive.write(ROOT / name, name)
    assert indexed(worker, tmp_path / "sources.zip", tmp_path / "app") == ["health", "live"]


@pytest.mark.slow
def test_the_same_again(deployed: package.Package, tmp_path: Path) -> None:
    assert built(deployed.python, tmp_path).path.read_bytes() == deployed.path.read_bytes()


@pytest.mark.slow
def test_a_zip_that_does_not_start_is_no_package(deployed: package.Package, tmp_path: Path) -> None:
    """A package that only a call needs: indexing alone does not see that it is missing."""
    lacking = package.Package(tmp_path / "lacking.zip", deployed.python, 0, {})
    with zipfile.ZipFile(deployed.path) as old, zipfile.ZipFile(lacking.path, "w") as new:
        for entry in old.infolist():
            if "/azure/data/" not in entry.filename:
                new.writestr(entry, old.read(entry))
    runs = package.interpreter(deployed.python)
    assert runs is not None
    with pytest.raises(package.PackageError, match=r"it does not start: (.|\n)*No module named 'azure\.data'"):
        package.functions_in(lacking, runs)


HEALTH = """
import json, sys
sys.path[:] = [sys.argv[1], *sys.path, sys.argv[2]]
import function_app
functions = {function.get_function_name(): function for function in function_app.app.get_functions()}
answer = functions["health"].get_user_function()(None)
print(json.dumps([sorted(functions), answer.status_code, json.loads(answer.get_body())["detail"]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("minor", ["3.11", "3.13"])
def test_on_another_python_it_says_so(deployed: package.Package, minor: str, tmp_path: Path) -> None:
    """As after a build for another minor than the app runs on, in Azure or here."""
    runs = package.interpreter(minor)
    require(runs is not None, f"there is no Python {minor} here")
    with zipfile.ZipFile(deployed.path) as archive:
        archive.extractall(tmp_path)
    command = [str(runs), "-I", "-S", "-c", HEALTH, str(tmp_path / package.SITE), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    names, status, detail = json.loads(done.stdout)
    assert (names, status) == (["health", "live"], 503)
    assert detail.startswith(f"the app runs on Python {minor}, and its packages were built for Python 3.12 (x86_64-")
    assert detail in done.stderr, "the log says it too"


# Deploying it


@dataclass
class Deployment:
    """What the app's deployment address is told and answers, as azd and the Azure CLI read it."""

    statuses: list[int | str]
    accepts: int = 202
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    body: bytes = b""


@pytest.fixture
def scm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment address over TLS on this machine, and an az that names it."""
    state = Deployment([4])

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self, status: int, body: object) -> None:
            state.asked.append((self.command, self.path, self.headers["Authorization"]))
            sent = json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def do_POST(self) -> None:
            state.body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(state.accepts, "0a1b-2c3d" if state.accepts == 202 else {"message": "no"})

        def do_GET(self) -> None:
            next_one = state.statuses.pop(0)
            if next_one == "":  # it hangs up
                state.asked.append((self.command, self.path, self.headers["Authorization"]))
                self.close_connection = True
            elif isinstance(next_one, str):
                self._answer(int(next_one), {"message": "gone"})
            else:
                self._answer(200, {"status": next_one, "status_text": "because of this"})

    authority, server = trustme.CA(), ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    az = tmp_path / "bin" / "az"
    az.parent.mkdir()
    az.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'"resource show -g group -n app "*) echo 127.0.0.1:{server.server_port} ;;\n'
        '"account get-access-token "*) echo the-token ;;\n'
        '*) echo "ERROR: $4 was not found" >&2; exit 3 ;;\n'
        "esac\n"
    )
    az.chmod(0o755)
    monkeypatch.setenv("PATH", f"{az.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr("time.sleep", lambda _: None)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def _publish(folder: Path, group: str = "group") -> int:
    zipped = folder / "guard.zip"
    zipped.write_bytes(b"PK: a zip")
    return publish.main([group, "app", str(zipped)])


@pytest.mark.parametrize("statuses", [[4], [0, 1, 2, 4], [1, "503", 4], [2, "404"], ["404", "404", 1, 4], [1, "", 4]])
def test_it_is_sent_as_it_is(scm: Deployment, statuses: list[int | str], tmp_path: Path) -> None:
    scm.statuses = list(statuses)
    assert _publish(tmp_path) == 0
    assert scm.body == b"PK: a zip"
    assert scm.asked[0] == ("POST", "/api/publish?RemoteBuild=false", "Bearer the-token")
    assert [asked[1] for asked in scm.asked[1:]] == ["/api/deployments/0a1b-2c3d"] * len(statuses)


@pytest.mark.parametrize(
    ("accepts", "statuses", "said"),
    [
        (202, [1, 3], "it failed: because of this"),
        (202, [5], "another deployment is going"),
        (202, [-1], "it was cancelled"),
        (202, [6], "it was done in part"),
        (202, ["404"] * 5, "does not say how far it is (404)"),
        (202, ["200"], "does not say how far it is: {"),
        (403, [], 'refused it with 403: {"message": "no"}'),
    ],
)
def test_what_is_not_deployed_is_said(
    scm: Deployment,
    accepts: int,
    statuses: list[int | str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scm.accepts, scm.statuses = accepts, list(statuses)
    assert _publish(tmp_path) == 1
    assert said in capsys.readouterr().err


def test_the_token_goes_nowhere_else(scm: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scm.accepts = 302
    assert _publish(tmp_path) == 1
    assert "refused it with 302" in capsys.readouterr().err
    assert [path for _, path, _ in scm.asked] == ["/api/publish?RemoteBuild=false"]


@pytest.mark.usefixtures("scm")
def test_an_app_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _publish(tmp_path, "other") == 1
    assert "not deployed: az resource show: ERROR: other was not found" in capsys.readouterr().err


def test_one_that_does_not_end() -> None:
    class Slow(publish.Site):
        """Answers at once, and is never done."""

        def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
            return (202, b'"one"') if body else (200, b'{"status": 1}')

    with pytest.raises(publish.PublishError, match=r"not done after 0.05 seconds: https://h/api/deployments/one"):
        publish.publish(Slow("h", "t"), b"zip", seconds=0.05, pause=0.01)

"""Makes the zip that is deployed without a build in Azure: the app's files, and its packages for the Python it runs on.

    python -m tools.package [--python 3.12] [--out dist/guard.zip]

The app's files are git's own list without what .funcignore names, as they are on the disk. Packages are wheels alone,
for Linux on x86-64, where the Functions host looks for them, installed by the target's own Python: pip takes the
conditions in what a package requires ("python_version < 3.13") from the Python that runs it, whatever it is told to
install for. The same files and wheels give the same zip. Then the zip is started as a Functions worker starts it.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shared import __version__

ROOT = Path(__file__).parents[1]
SITE = ".python_packages/lib/site-packages"
"""Where the Functions host looks for an app's packages."""
STAMP = "guard-build.json"
"""The file in the zip that says what it is: version, commit, Python, and the packages with their versions."""
LIMIT_MB = 60
# What the host's image can load, oldest first: pip takes each as it is said, and no older one by itself.
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
_TEMPLATE = ROOT / "infra" / "main.bicep"
# Entry points of the packages' own commands, and tests that the Durable SDK's wheel has beside itself.
_LEFT_OUT = ("bin", "tests")
_PARTS_SHOWN = 8
_EPOCH = (1980, 1, 1, 0, 0, 0)


class PackageError(Exception):
    """The package cannot be made, or is none that would run; the text is for who asked for it."""


@dataclass(frozen=True, slots=True)
class Package:
    """A zip that was made: the Python it is for, and its parts' sizes in the zip, in bytes."""

    path: Path
    python: str
    unpacked: int
    parts: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes of the zip."""
        return self.path.stat().st_size


def pythons() -> tuple[str, tuple[str, ...]]:
    """The Python that infra/main.bicep deploys where it is told no other, and those that it takes."""
    text = _TEMPLATE.read_text("utf-8")
    found = re.search(r"@allowed\(\[([^\]]+)\]\)\nparam pythonVersion string = '([\d.]+)'", text)
    if found is None:
        raise PackageError(f"{_TEMPLATE.name} says no Python (param pythonVersion)")
    return found[2], tuple(re.findall(r"'([\d.]+)'", found[1]))


def interpreter(minor: str) -> str | None:
    """A Python of this minor on this machine, such as of "3.12"; None where there is none."""
    if minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    candidates = [f"python{minor}"]
    if pyenv := shutil.which("pyenv"):
        listed = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        candidates += map(str, sorted(Path(listed).glob(f"versions/{minor}.*/bin/python"), reverse=True))
    for candidate in filter(shutil.which, candidates):
        # A name on the path may be a shim of a Python that is not switched on.
        asked = subprocess.run([candidate, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
        if asked.returncode == 0:
            return asked.stdout.strip()
    return None


def own_files() -> list[str]:
    """The app's own files, from the root: what is in git and not in .funcignore, in order."""
    ignored = set(_git("ls-files", "--cached", "--ignored", "--exclude-from=.funcignore", "-z").split("\0"))
    return sorted(name for name in _git("ls-files", "--cached", "-z").split("\0") if name and name not in ignored)


def make(python: str, out: Path) -> Package:
    """Make the zip at `out` for this minor of Python. Raises PackageError with what is missing or too much."""
    _, taken = pythons()
    if python not in taken:
        raise PackageError(f"Python {python} is none that {_TEMPLATE.name} deploys: {', '.join(taken)}")
    runs = interpreter(python)
    if runs is None:
        raise PackageError(
            f"Python {python} is not on this machine, and its packages are chosen by itself: install it, or take one"
            f" that is here (make package PYTHON_TARGET=...) and deploy with that as pythonVersion"
        )
    with tempfile.TemporaryDirectory(prefix="guard-package-") as folder:
        _install(runs, python, Path(folder))
        files = {name: ROOT / name for name in own_files()}
        files |= {f"{SITE}/{name}": Path(folder, name) for name in _packaged(Path(folder))}
        stamp = json.dumps(_stamp(python, Path(folder)), indent=2, sort_keys=True) + "\n"
        package = _zip(files, stamp, python, out)
    if package.size > LIMIT_MB * 1_000_000:
        raise PackageError(f"{out} has {package.size / 1e6:.1f} MB, and {LIMIT_MB} is the most")
    return package


def functions_in(package: Package, runs: str) -> list[str]:
    """The names of the functions that the unpacked zip has when it is imported as a Functions worker does.

    `runs` is the Python to do it with: isolated, with the zip's folders and its own library and nothing else. Every
    module of the app is imported as well, since much is imported when it is needed first. Raises PackageError with
    what was said where that fails.
    """
    with tempfile.TemporaryDirectory(prefix="guard-start-") as folder:
        with zipfile.ZipFile(package.path) as archive:
            archive.extractall(folder)
        return _indexed([runs, "-I", "-S", "-c", _START, str(Path(folder, SITE)), folder], Path(folder))


def functions_here() -> list[str]:
    """The same of the source tree, in this environment."""
    return _indexed([sys.executable, "-c", _START, str(ROOT)], ROOT)


# What a worker does: the app's packages first, the app's own folder last (azure_functions_worker, utils/dependency.py).
_START = """
import json, pkgutil, sys
sys.path[:] = [*sys.argv[1:-1], *sys.path, sys.argv[-1]]
import function_app
names = sorted(function.get_function_name() for function in function_app.app.get_functions())
import shared
for module in pkgutil.walk_packages(shared.__path__, "shared."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
print(json.dumps(names))
"""


def _indexed(command: list[str], cwd: Path) -> list[str]:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"AzureWebJobsStorage": "UseDevelopmentStorage=true", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise PackageError(f"it does not start: {done.stderr.strip()[-2000:]}")
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise PackageError(f"git knows nothing of {ROOT}: {done.stderr.strip()}")
    return done.stdout


def _install(runs: str, python: str, folder: Path) -> None:
    platforms = [f"--platform={name}" for name in PLATFORMS]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", runs, "install", "--quiet", "--disable-pip-version-check"),
            *("--root-user-action=ignore", "--no-compile", f"--target={folder}"),
            *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms),
            f"--requirement={ROOT / 'requirements.txt'}",
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise PackageError(f"pip could not install the packages:\n{done.stderr.strip()}")


def _packaged(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and name.parts[0] not in _LEFT_OUT and "__pycache__" not in name.parts:
            yield name.as_posix()


def _stamp(python: str, folder: Path) -> dict[str, object]:
    changed = bool(_git("status", "--porcelain", "--untracked-files=no").strip())
    packages = sorted(item.name.removesuffix(".dist-info").split("-") for item in folder.glob("*.dist-info"))
    return {
        "version": __version__,
        "commit": _git("rev-parse", "HEAD").strip() + ("+changes" if changed else ""),
        "python": python,
        "platform": PLATFORMS[-1],
        "packages": dict(packages),
    }


def _zip(files: Mapping[str, Path], stamp: str, python: str, out: Path) -> Package:
    out.parent.mkdir(parents=True, exist_ok=True)
    parts: Counter[str] = Counter()
    unpacked = 0
    new = out.with_name(out.name + ".new")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted([*files, STAMP]):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whose modes these are: a regular file that all may read
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, stamp if name == STAMP else files[name].read_bytes())
            parts[_part(name)] += entry.compress_size
            unpacked += entry.file_size
    new.replace(out)
    return Package(out, python, unpacked, parts)


def _part(name: str) -> str:
    """What a file belongs to: a package (of azure, the one below), or the app."""
    if not name.startswith(SITE):
        return "the app itself"
    parts = name.removeprefix(f"{SITE}/").split("/")
    depth = 1 if parts[0] != "azure" else 3 if parts[1] == "mgmt" else 2
    return "/".join(parts[:depth])


def _start(package: Package) -> str:
    """Start the zip where this machine can, and say what came of it. Raises PackageError where it does not start."""
    runs = interpreter(package.python)
    if runs is None or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "not started: this machine cannot run what is built for Linux on x86-64"
    names, here = functions_in(package, runs), functions_here()
    if names != here:
        raise PackageError(f"it does not have the functions of the source tree: {sorted(set(names) ^ set(here))}")
    return f"started on Python {package.python}: {len(names)} functions, as in the source tree"


def main(arguments: list[str] | None = None) -> int:
    """Make the zip, start it, and say what it is and how it is deployed. 1 where that cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.package", description="The zip for deploying without a build."
    )
    parser.add_argument("--python", default="", help="minor of Python to build for (default: the one infra/ deploys)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "guard.zip", help="(default: dist/guard.zip)")
    given = parser.parse_args(arguments)
    try:
        default, _ = pythons()
        package = make(given.python or default, given.out)
        started = _start(package)
    except PackageError as error:
        print(f"no package: {error}", file=sys.stderr)
        return 1
    print(f"{package.path}: {package.size / 1e6:.1f} MB, {package.unpacked / 1e6:.1f} MB unpacked, of")
    for name, size in Counter(package.parts).most_common(_PARTS_SHOWN):
        print(f"  {size / 1e6:5.1f} MB  {name}")
    print(started)
    if package.python != default:
        print(f"infra/ deploys Python {default} by itself: give the templates pythonVersion={package.python} as well")
    print("docs/deploying.md, Without a remote build, says how to deploy it")
    return 0


if __name__ == "__main__":
    sys.exit(main())

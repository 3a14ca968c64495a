"""The real Bicep compiler as one process that answers many questions (`bicep jsonrpc`): the first costs what a call of
the command costs, 2 to 4 s, and the others a fraction of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

_ANSWER_SECONDS: Final = 300


class CompilerError(Exception):
    """The compiler refused what it was asked, or ended; says what it said."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """What the compiler or its linter says of a line. `level`: Error, Warning or Info."""

    file: Path
    line: int
    level: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.level} {self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """The ARM JSON of a file (a template, or a parameters file), and what there is to say of it."""

    content: dict[str, Any]
    diagnostics: tuple[Diagnostic, ...]


class Compiler:
    """A running compiler. One question at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._asked = 0

    def compile(self, file: Path) -> Compiled:
        """Compiles a .bicep or .bicepparam file. Raises CompilerError where it has an error."""
        if file.suffix == ".bicepparam":
            answer = self._ask("bicep/compileParams", {"path": str(file), "parameterOverrides": {}})
        else:
            answer = self._ask("bicep/compile", {"path": str(file)})
        diagnostics = tuple(
            Diagnostic(
                Path(each["source"]), each["range"]["start"]["line"] + 1, each["level"], each["code"], each["message"]
            )
            for each in answer["diagnostics"]
        )
        if not answer["success"]:
            raise CompilerError("\n".join(str(each) for each in diagnostics if each.level == "Error"))
        return Compiled(json.loads(answer["parameters" if file.suffix == ".bicepparam" else "contents"]), diagnostics)

    def formatted(self, file: Path) -> str:
        """The text of a file as the compiler formats it."""
        return cast(str, self._ask("bicep/format", {"path": str(file)})["contents"])

    def snapshot(self, parameters: Path, scope: Mapping[str, str]) -> dict[str, Any]:
        """The resources that a deployment of a .bicepparam file makes: `{predictedResources, diagnostics, outputs}`.

        `scope`: `subscriptionId`, `managementGroupId`, `location`, … of the deployment. Raises CompilerError where the
        files do not compile, or the prediction has a diagnostic.
        """
        self.compile(parameters)  # The prediction itself only says that it failed.
        answer = self._ask("bicep/getSnapshot", {"path": str(parameters), "metadata": dict(scope)})
        found: dict[str, Any] = json.loads(answer["snapshot"])
        if found["diagnostics"]:
            raise CompilerError(f"{parameters.name}: {json.dumps(found['diagnostics'])}")
        return found

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked += 1
        body = json.dumps({"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params}).encode()
        # One that hangs would hold up everything: killed, it is read as one that ended.
        watch = threading.Timer(_ANSWER_SECONDS, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            self._process.stdin.flush()
            length = 0
            while (line := self._process.stdout.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            content = self._process.stdout.read(length)
        except BrokenPipeError as error:
            raise CompilerError(f"bicep ended before it was asked {method}") from error
        finally:
            watch.cancel()
        if not content:
            raise CompilerError(f"bicep ended, or did not answer in {_ANSWER_SECONDS} s, when it was asked {method}")
        answer = json.loads(content)
        if "error" in answer:
            raise CompilerError(f"{method}: {answer['error']['message']}")
        return cast(dict[str, Any], answer["result"])


@contextmanager
def compiler(directory: Path) -> Iterator[Compiler]:
    """Starts the compiler of PATH, working in a directory, and ends it. Raises CompilerError where there is none."""
    program = shutil.which("bicep")
    if program is None:
        raise CompilerError("bicep is not on PATH")
    # Parameters files read these; what is predicted must not depend on who predicts. Where libicu is missing, .NET
    # wants to be told that it may do without.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "GUARD_"))}
    environment.setdefault("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
    with subprocess.Popen(
        [program, "jsonrpc", "--stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=directory,
        env=environment,
    ) as process:
        try:
            yield Compiler(process)
        finally:
            process.kill()

"""The templates of infra/ and the real Bicep compiler, which must be on PATH:

`python -m tools.bicep check`      they compile without a warning, the linter's included, in the compiler's own format
`python -m tools.bicep snapshots`  predicts every combination of parameters, and writes infra/snapshots anew
`python -m tools.bicep outdated`   lists resource types with a newer stable API version than the one that is used
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tools.bicep.combinations import COMBINATIONS, INFRA, LONGEST, predicted
from tools.bicep.compiler import CompilerError, compiler
from tools.bicep.snapshots import FOLDER, Snapshot, text

_ENTRIES: Final = ("main.bicep", "access-subscription.bicep", "access-management-group.bicep")
_NEWEST_ONLY: Final = {"use-recent-api-versions": {"level": "warning", "maxAgeInDays": 0, "gracePeriodInDays": 0}}


def problems(folder: Path = INFRA) -> Iterator[str]:
    """What the compiler has against the templates, a line each. Raises CompilerError where one does not compile."""
    with compiler(folder) as running:
        said = [each for name in (*_ENTRIES, "main.bicepparam") for each in running.compile(folder / name).diagnostics]
        # A module that two files call is said twice.
        yield from sorted({str(each) for each in said})
        for path in sorted([*folder.rglob("*.bicep"), *folder.rglob("*.bicepparam")]):
            if running.formatted(path) != path.read_text():
                yield f"{path}: not as bicep formats: bicep format {path}"


def outdated(folder: Path = INFRA) -> list[str]:
    """Each place with an API version that is not the newest stable one, a line each. Raises CompilerError."""
    with tempfile.TemporaryDirectory() as temporary, compiler(Path(temporary)) as running:
        # The compiler takes its rules from a file beside the templates.
        copy = Path(temporary) / "infra"
        shutil.copytree(folder, copy)
        config = {"analyzers": {"core": {"enabled": True, "rules": _NEWEST_ONLY}}}
        (copy / "bicepconfig.json").write_text(json.dumps(config))
        found = {each for entry in _ENTRIES for each in running.compile(copy / entry).diagnostics}
    return sorted(
        f"infra/{each.file.relative_to(copy)}:{each.line}: {_briefly(each.message)}"
        for each in found
        if each.code == "use-recent-api-versions"
    )


def snapshots() -> dict[str, str]:
    """Every file of infra/snapshots as the templates now make it: name to content. Raises CompilerError."""
    found: dict[str, str] = {}
    known: dict[str, Snapshot] = {}
    with tempfile.TemporaryDirectory() as folder, compiler(Path(folder)) as running:
        for combination in COMBINATIONS:
            snapshot = known[combination.name] = predicted(running, combination, Path(folder))
            base = known[combination.base] if combination.base else None
            found[f"{combination.name}.json"] = text(snapshot, combination.base, base)
        longest = predicted(running, LONGEST, Path(folder))
        interfaces = {entry: interface(running.compile(INFRA / entry).content) for entry in _ENTRIES}
    found[f"{LONGEST.name}.txt"] = "".join(f"{id_}\n" for id_ in sorted(longest.resources))
    found["interface.json"] = json.dumps(interfaces, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return found


def interface(template: Mapping[str, Any]) -> dict[str, Any]:
    """What whoever deploys a compiled template gives and gets: `{parameters, outputs, definitions}` as ARM JSON has
    them, without the values of outputs."""
    outputs = {
        name: {key: value for key, value in output.items() if key != "value"}
        for name, output in template.get("outputs", {}).items()
    }
    return {
        "parameters": template["parameters"],
        "outputs": outputs,
        **({"definitions": template["definitions"]} if "definitions" in template else {}),
    }


def write(made: dict[str, str], folder: Path = FOLDER) -> list[str]:
    """Makes a folder hold those files and no others. Gives the names of those that changed."""
    folder.mkdir(exist_ok=True)
    there = {path.name: path.read_text() for path in folder.iterdir()}
    for name in there.keys() - made.keys():
        (folder / name).unlink()
    changed = [name for name, content in made.items() if there.get(name) != content]
    for name in changed:
        (folder / name).write_text(made[name])
    return sorted([*changed, *(there.keys() - made.keys())])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bicep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["check", "snapshots", "outdated"])
    try:
        match parser.parse_args().what:
            case "check":
                if found := list(problems()):
                    sys.exit("\n".join(found))
            case "snapshots":
                for name in write(snapshots()):
                    print(f"infra/snapshots/{name} changed")
            case "outdated":
                for line in outdated():
                    print(line)
    except CompilerError as error:
        sys.exit(str(error))


def _briefly(message: str) -> str:
    found = re.search(r"for '(\S+)'\. '(\S+)' is .*Acceptable versions: (.*)", message)
    return f"{found[1]} {found[2]} -> {found[3]}" if found else message


if __name__ == "__main__":
    main()

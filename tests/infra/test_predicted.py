"""What infra/snapshots holds is what the templates deploy, in the real compiler's prediction."""

from __future__ import annotations

import difflib
import shutil

from tests.support.require import require
from tools.bicep.__main__ import snapshots
from tools.bicep.snapshots import FOLDER


def test_the_kept_snapshots_are_what_the_templates_deploy() -> None:
    require(shutil.which("bicep") is not None, "bicep is not on PATH")
    made = snapshots()
    kept = {path.name: path.read_text() for path in FOLDER.iterdir()}
    differences = [
        line
        for name in sorted(made.keys() | kept.keys())
        for line in difflib.unified_diff(
            kept.get(name, "").splitlines(), made.get(name, "").splitlines(), f"kept/{name}", f"predicted/{name}", n=4
        )
    ]
    assert not differences, "\n".join([*differences[:200], "make snapshots writes them anew"])

"""The pages keep up with the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from shared.controls.codes import Code

ROOT = Path(__file__).parent.parent


def codes_of_problems() -> set[str]:
    """The codes that are written out where a Problem is made."""
    found = set()
    for path in (ROOT / "shared").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                given = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
                found |= {str(item.value) for item in given if isinstance(item, ast.Constant)}
    return found


def test_every_code_of_a_finding_stands_in_the_page() -> None:
    page = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs/verdicts.md").read_text()))
    codes = codes_of_problems()
    assert {"batch_failed", "windows", "internal"} <= codes
    assert codes - page == set()
    assert {str(code) for code in Code} - page == set()


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", page.read_text()):
            path = (page.parent / target) if target else page
            assert path.exists(), f"{page.name}: {target}"
            if anchor and path.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, anchor


def test_names_in_commands_are_made_before_they_are_used() -> None:
    pages = {page: page.read_text() for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
    used_at_all = set()
    for page, text in pages.items():
        known = {"1", "PATH", "HOME"}
        for block in re.finditer(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            for line in block[1].splitlines():
                line = re.sub(r"(^|\s)#.*", "", line)
                known |= set(re.findall(r"\bfor (\w+) in", line))
                known |= {name for names in re.findall(r"\bread -r ([\w ]+);", line) for name in names.split()}
                known |= set(re.findall(r"\b(out)\(\)", line))
                used = set(re.findall(r"\$\{?(\w+)", line)) | set(re.findall(r"\$\((out) ", line))
                made = set(re.findall(r"(?:^|\s)(\w+)=", line))
                # A page that says where `out` is made may use it.
                if "](deploying.md" in text[: block.start()] or "deploying.md" in block[1]:
                    known.add("out")
                assert used - known == set(), f"{page.name}: {line.strip()}"
                known |= made
                used_at_all |= used
    assert {"out", "ID", "KEY", "GROUP"} <= used_at_all

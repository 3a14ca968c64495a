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


def made_in(text: str) -> set[str]:
    """Names that a text of shell makes."""
    found = set(re.findall(r"(?:^|\s)(\w+)=", text, re.MULTILINE))
    found |= set(re.findall(r"\bfor (\w+) in", text)) | set(re.findall(r"\b(\w+)\(\)", text))
    return found | {name for names in re.findall(r"\bread -r ([\w ]+);", text) for name in names.split()}


def used_in(text: str) -> set[str]:
    """Names that a text of shell uses."""
    return set(re.findall(r"\$\{?(\w+)", text)) | set(re.findall(r"\$\((out) ", text))


def test_names_in_commands_are_made_before_they_are_used() -> None:
    """On their page, or on one that it links to before."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    made = {page: set().union(*(made_in(block) for block in blocks.findall(page.read_text()))) for page in pages}
    used = set()
    for page in pages:
        text = page.read_text()
        known = {"1", "PATH", "HOME"}
        for block in blocks.finditer(text):
            for target in re.findall(r"\]\(([\w/-]+\.md)", text[: block.start()]):
                known |= made[(page.parent / target).resolve()]
            for line in block[1].splitlines():
                line = re.sub(r"(^|\s)#.*", "", line)
                known |= made_in(line) - set(re.findall(r"(?:^|\s)(\w+)=", line))
                assert used_in(line) - known == set(), f"{page.name}: {line.strip()}"
                known |= made_in(line)
                used |= used_in(line)
    assert {"out", "ID", "KEY", "GROUP", "API"} <= used


def test_what_is_listed_in_the_resource_group_is_of_this_installation() -> None:
    """The group may hold others' things (resourceGroupName), and some of these lists are deleted."""
    lists = re.compile(r"az (?:network|monitor) [a-z -]* list --resource-group [^|]*")
    found = {(page.name, each) for page in (ROOT / "docs").glob("*.md") for each in lists.findall(page.read_text())}
    assert found
    assert [each for each in found if '--query "[?' not in each[1]] == []
    template = (ROOT / "infra" / "main.bicep").read_text()
    (workspace,) = re.findall(r"^WORKSPACE=(\S+-)\$\(", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    assert f"'{workspace}${{token}}'" in template

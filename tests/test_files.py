"""Files that are written for the user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.files import write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    """Nothing else hides a file that is made for all to read."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_private(path, "ä\n")
    assert (path.read_text("utf-8"), mode(path)) == ("ä\n", 0o600)
    path.chmod(0o644)
    held = path.open()
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert held.read() == "ä\n", "whoever had the old file open has none of the new one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("plan.json")
    write_private(tmp_path / "link", "text")
    assert (tmp_path / "link").readlink() == Path("plan.json")
    assert (tmp_path / "plan.json").read_text() == "text"


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "new \udcff")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="nowhere"):
        write_private(tmp_path / "nowhere" / "plan.json", "new")


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_private(tmp_path / "pipe", "text")
    assert os.read(reader, 99) == b"text"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)

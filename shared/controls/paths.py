"""The way of a path: the links and directories that the kernel meets from the root to the file."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from shared.models import Link

# Of these, the ways are remembered; a node's own are shorter by far.
_LONGEST_REMEMBERED = 128
# Linux follows as many links in one path (path_resolution(7)).
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Way:
    """What lies on the way of a path: `links` and `directories` by the names that evidence has them under.

    `end` is where the way leads, without links (None where it has more links than the kernel follows).
    """

    links: tuple[str, ...]
    directories: tuple[str, ...]
    end: str | None


def absolute(path: str, directory: str = "/") -> str:
    """A path as evidence names it: from the root, without doubled slashes, `.` and `..`, as Go's filepath.Abs does."""
    return posixpath.normpath("/" + posixpath.join(directory, path).lstrip("/"))


def absolute_directory(path: str, directory: str = "/") -> str:
    """A configuration directory as evidence names it: a slash at its end stays, since it makes a walk follow a link."""
    plain = absolute(path, directory)
    return f"{plain}/" if path.endswith("/") and plain != "/" else plain


def way(path: str, links: Mapping[str, Link]) -> Way:
    """The way of an absolute path through these links. A slash at its end makes the last component a directory."""
    if len(path) <= _LONGEST_REMEMBERED:
        straight, places = _without_links(path)
        if links.keys().isdisjoint(places):
            return straight
    return _walked(path, links)


@lru_cache(maxsize=1024)
def _without_links(path: str) -> tuple[Way, frozenset[str]]:
    """The way where no link is on it, and the places where none must be."""
    found = _walked(path, {})
    assert found.end is not None  # there are no links
    return found, frozenset({*found.directories, found.end, *_passed(path)})


def _passed(path: str) -> Iterator[str]:
    """Every place at which the walk looks for a link; what `..` leaves again is one, too."""
    here = "/"
    for name in reversed(_components(path)):
        here = posixpath.dirname(here) if name == ".." else posixpath.join(here, name)
        yield here


def _walked(path: str, links: Mapping[str, Link]) -> Way:
    ahead = _components(path)
    here = "/"
    met: list[str] = []
    directories: dict[str, None] = {}
    while ahead:
        name = ahead.pop()
        if name == "..":
            here = posixpath.dirname(here)
            continue
        step = posixpath.join(here, name)
        link = links.get(step)
        if link is not None:
            met.append(step)
            if len(met) > _MOST_LINKS:
                return Way(tuple(met), tuple(directories), None)
            ahead += _components(link.target)
            here = "/" if link.target.startswith("/") else here
            continue
        here = step
        if ahead or path.endswith("/"):
            directories[here] = None
    return Way(tuple(met), tuple(directories), here)


def _components(path: str) -> list[str]:
    """The components of a path, the first of them last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]

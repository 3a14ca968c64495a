"""What a setting is where nothing sets it, minor by minor (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from shared.kubelet.resolve import GATES, resolve
from shared.kubelet.versions import modelled_minors

_EMPTY = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"


@dataclass(frozen=True, slots=True)
class Usual:
    """A setting's default in the Kubernetes minors 1.`first` to 1.`last`.

    `with_file` is that with a config file that does not name it, `arguments_alone` that without one. `known` is false
    where these minors have no such setting or feature gate; then both are None.
    """

    first: int
    last: int
    with_file: object
    arguments_alone: object
    known: bool = True


def usual(path: str) -> tuple[Usual, ...]:
    """The defaults of a setting in all minors that have data, the oldest first; minors in a row that agree are one."""
    found: list[Usual] = []
    for minor in modelled_minors():
        now = _of(path, minor)
        before = found[-1] if found else None
        if before is not None and _same(before, now):
            found[-1] = Usual(before.first, minor, now.with_file, now.arguments_alone, now.known)
        else:
            found.append(now)
    return tuple(found)


def _of(path: str, minor: int) -> Usual:
    with_file = resolve(("kubelet", "--config=/config"), {"/config": _EMPTY}, version=f"1.{minor}.0")
    alone = resolve(("kubelet",), {}, version=f"1.{minor}.0")
    try:
        found = with_file.effective(path), alone.effective(path)
    except KeyError:
        return Usual(minor, minor, None, None, known=False)
    return Usual(minor, minor, *found, known=not (path.startswith(GATES) and found[0] is None))


def _same(one: Usual, other: Usual) -> bool:
    return (one.with_file, one.arguments_alone, one.known) == (other.with_file, other.arguments_alone, other.known)

"""What is proved is true: verdicts on a small file system to which things happen after the kubelet has read it.

The file system keeps times as Linux does (ctime): a write or chmod moves the inode's, an entry that comes or goes moves
its directory's, and a rename moves both directories' and the renamed inode's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.controls import control, judge
from shared.models import Evidence, Health, Link, Listing, Process, Status
from tests.support.evidence import CONFIG, CONFIG_DIR, SECOND, UNIT, config, file

MILLISECOND = 1_000_000
TICK = 10 * MILLISECOND
CONTROL = control("3.2.6")
GOOD, BAD = config(makeIPTablesUtilChains=True), config(makeIPTablesUtilChains=False)
EMPTY = config()
ARGV = ("/opt/bin/kubelet", f"--config={CONFIG}", f"--config-dir={CONFIG_DIR}")
UNIT_TEXT = "[Service]\nExecStart=" + " ".join(ARGV) + "\n"


@dataclass
class Inode:
    """A file (`text`), a link (`target`) or a directory."""

    changed: int
    text: str | None = None
    target: str | None = None
    entries: dict[str, Inode] = field(default_factory=dict)


@dataclass
class World:
    """A node's files and clocks. `uptime` is the kernel's clock, `offset` what the wall clock has besides."""

    uptime: int = 1000 * SECOND
    offset: int = 1_800_000_000 * SECOND
    root: Inode = field(default_factory=lambda: Inode(0))

    @property
    def now(self) -> int:
        """The wall clock."""
        return self.uptime + self.offset

    @property
    def coarse(self) -> int:
        """The clock that change times come from."""
        return self.now - self.now % TICK

    def find(self, path: str) -> Inode | None:
        """What a path leads to, links followed."""
        here: list[Inode] = [self.root]
        ahead = [name for name in reversed(path.split("/")) if name]
        for _ in range(60):
            if not ahead:
                return here[-1]
            name = ahead.pop()
            inode = here[-1].entries.get(name)
            if inode is None:
                return None
            if inode.target is None:
                here.append(inode)
                continue
            if inode.target.startswith("/"):
                here = [self.root]
            ahead += [name for name in reversed(inode.target.split("/")) if name]
        return None

    def parent(self, path: str) -> Inode:
        """The directory of a path, made where it is missing."""
        here = self.root
        for name in posixpath.dirname(path).split("/"):
            if name and name not in here.entries:
                here.changed = self.coarse
                here.entries[name] = Inode(self.coarse)
            here = here.entries[name] if name else here
        return here

    def put(self, path: str, inode: Inode) -> None:
        """A new entry, or another inode in its place."""
        directory = self.parent(path)
        directory.changed = inode.changed = self.coarse
        directory.entries[posixpath.basename(path)] = inode

    def take(self, path: str) -> Inode | None:
        directory = self.parent(path)
        inode = directory.entries.pop(posixpath.basename(path), None)
        if inode is not None:
            directory.changed = self.coarse
        return inode

    def create(self, path: str, text: str) -> None:
        self.put(path, Inode(0, text=text))

    def rename(self, path: str, to: str) -> None:
        inode = self.take(path)
        if inode is not None:
            self.put(to, inode)

    def link(self, path: str, target: str) -> None:
        self.put(path, Inode(0, target=target))

    def write(self, path: str, text: str | None = None) -> None:
        """Write in place; without a text, change the mode only."""
        inode = self.find(path)
        if inode is not None:
            inode.changed = self.coarse
            inode.text = inode.text if text is None or inode.text is None else text


def reads(world: World) -> bool | None:
    """What a kubelet that starts now has; None where it refuses to start."""
    value = True
    directory = world.find(CONFIG_DIR)
    names = sorted(directory.entries) if directory is not None else []
    for path in (CONFIG, *(f"{CONFIG_DIR}/{name}" for name in names if name.endswith(".conf"))):
        inode = world.find(path)
        if inode is None or inode.text is None:
            return None
        value = {GOOD: True, BAD: False}.get(inode.text, value)
    return value if directory is not None else None


def walk(world: World, path: str, links: dict[str, Link], directories: dict[str, int]) -> None:
    """Report a path's way, as the collector does."""
    here, ahead = "/", [name for name in reversed(path.split("/")) if name]
    directories["/"] = world.root.changed
    for _ in range(60):
        if not ahead:
            return
        step = posixpath.join(here, ahead.pop())
        inode = world.parent(step).entries.get(posixpath.basename(step))
        if inode is None:
            return
        if inode.target is not None:
            links[step] = Link(inode.target, inode.changed)
            here = "/" if inode.target.startswith("/") else here
            ahead += [name for name in reversed(inode.target.split("/")) if name]
            continue
        here = step
        if inode.text is None:
            directories[here] = inode.changed


def seen_now(world: World, started: int, started_monotonic: int) -> Evidence:
    files = {UNIT: file(UNIT, UNIT_TEXT, changed=0)}
    links: dict[str, Link] = {}
    directories: dict[str, int] = {}
    gone = set()
    directory = world.find(CONFIG_DIR)
    named = (
        [f"{CONFIG_DIR}/{name}" for name in sorted(directory.entries) if name.endswith(".conf")] if directory else []
    )
    for path in (CONFIG, CONFIG_DIR, *named):
        walk(world, path, links, directories)
        inode = world.find(path)
        if inode is None:
            gone.add(path)
        elif inode.text is not None:
            files[path] = file(path, inode.text, changed=inode.changed)
    return Evidence(
        collected=world.now,
        uptime=world.uptime,
        process=Process(
            "boot", 42, 4200, ARGV, started=started, started_monotonic=started_monotonic, version="v1.36.3"
        ),
        active_state="active",
        health=(Health("127.0.0.1", 10248, "ok"),),
        units=(UNIT,),
        files=files,
        links=links,
        directories=directories,
        listings={CONFIG_DIR: Listing(tuple(named), (CONFIG_DIR,)) if directory is not None else None},
        gone=frozenset(gone),
    )


DROPIN = f"{CONFIG_DIR}/50-team.conf"
ETC = posixpath.dirname(CONFIG)
EVENTS: dict[str, tuple[Callable[[World], object], ...]] = {
    "written good": (lambda world: world.write(CONFIG, GOOD),),
    "written bad": (lambda world: world.write(CONFIG, BAD),),
    "replaced by a new good one": (lambda world: world.create(CONFIG, GOOD),),
    "an older good one moved in": (lambda world: world.rename("/opt/good.json", CONFIG),),
    "an older bad one moved in": (lambda world: world.rename("/opt/bad.json", CONFIG),),
    "chmod": (lambda world: world.write(CONFIG),),
    "link to the good one": (lambda world: world.link(CONFIG, "/opt/good/kubeletconfig.json"),),
    "link on the way moved": (lambda world: world.link("/opt/current", "bad"),),
    "link on the way moved back": (lambda world: world.link("/opt/current", "good"),),
    "directory replaced": (lambda world: world.rename(ETC, "/opt/old"), lambda world: world.rename("/opt/good", ETC)),
    "directory moved and back": (lambda world: world.rename(ETC, "/opt/x"), lambda world: world.rename("/opt/x", ETC)),
    "another file in its directory": (lambda world: world.create(f"{ETC}/other", ""),),
    "another file in /etc": (lambda world: world.create("/etc/resolv.conf", ""),),
    "drop-in good": (lambda world: world.create(DROPIN, GOOD),),
    "drop-in bad": (lambda world: world.create(DROPIN, BAD),),
    "drop-in removed": (lambda world: world.take(DROPIN),),
    "drop-in moved in": (lambda world: world.rename("/opt/bad.json", DROPIN),),
    "README": (lambda world: world.create(f"{CONFIG_DIR}/README", "see the wiki"),),
    "drop-in's target written": (lambda world: world.write("/opt/team.conf", GOOD),),
    "drop-in's target removed": (lambda world: world.take("/opt/team.conf"),),
}
HARMLESS = {"another file in its directory", "another file in /etc"}
LAYOUTS = ("plain", "linked", "dropin", "linked drop-in")


def laid_out(layout: str, right: bool) -> World:
    world = World()
    text = GOOD if right else BAD
    for name, content in (("good", GOOD), ("bad", BAD)):
        world.create(f"/opt/{name}.json", content)
        world.create(f"/opt/{name}/kubeletconfig.json", content)
    world.create(f"{CONFIG_DIR}/README", "")
    world.link("/opt/current", "good" if right else "bad")
    world.create("/opt/team.conf", text)
    if layout == "linked":
        world.link(CONFIG, "/opt/current/kubeletconfig.json")
    else:
        world.create(CONFIG, text if layout == "plain" else EMPTY)
    if layout == "dropin":
        world.create(DROPIN, text)
    if layout == "linked drop-in":
        world.link(DROPIN, "/opt/team.conf")
    return world


@given(
    st.sampled_from(LAYOUTS),
    st.booleans(),
    st.integers(25, 5000),
    st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.sampled_from((0, 1, 9, 400, 2000))), max_size=4),
    st.sampled_from((0, 0, -86_400, -60, -1, 1, 60, 86_400)),
    st.integers(0, 4),
)
@settings(max_examples=400, deadline=None)
def test_what_is_proved_is_true(
    layout: str, right: bool, before: int, events: list[tuple[str, int]], step: int, steps_at: int
) -> None:
    """A start `before` milliseconds after the files were laid out, then events; the clock is set by `step` seconds."""
    world = laid_out(layout, right)
    world.uptime += before * MILLISECOND
    truth = reads(world)
    assert truth is right
    started, monotonic = world.now, world.uptime
    for at, (name, after) in enumerate(events):
        if at == steps_at:
            world.offset += step * SECOND
        world.uptime += after * MILLISECOND
        for happens in EVENTS[name]:
            happens(world)
    if steps_at >= len(events):
        world.offset += step * SECOND
    world.uptime += SECOND
    verdict = judge(CONTROL, seen_now(world, started, monotonic))
    told = f"{verdict} of {events}, {step} s at {steps_at}, started right: {right}"
    if verdict.status is Status.PASS:
        assert truth, told
    if verdict.status is Status.FAIL:
        assert verdict.actual is truth, told
    if not events and not step:
        assert verdict.status is (Status.PASS if right else Status.FAIL), told


def test_every_event_is_noticed_or_harmless() -> None:
    """Each event alone, long after the start: where it changes what is read, nothing is proved by the files."""
    noticed = set()
    for layout in LAYOUTS:
        for name, parts in EVENTS.items():
            world = laid_out(layout, right=True)
            world.uptime += 100 * SECOND
            started, monotonic = world.now, world.uptime
            world.uptime += 100 * SECOND
            for happens in parts:
                happens(world)
            verdict = judge(CONTROL, seen_now(world, started, monotonic))
            assert verdict.status in (Status.PASS, Status.ERROR), (layout, name, verdict)
            if reads(world) is not True:
                assert verdict.status is Status.ERROR, (layout, name, verdict)
            if verdict.status is Status.ERROR:
                noticed.add(name)
    assert noticed == set(EVENTS) - HARMLESS

"""What the running kubelet is proved to have read: times, clocks, links, directories, mounts, listings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.controls.inputs import Inputs, inputs
from shared.controls.paths import absolute, absolute_directory, way
from shared.controls.proof import doubt, fingerprint
from shared.models import Evidence, Link, Listing, Mount
from shared.systemd import service_rules
from tests.support.evidence import (
    AFTER,
    AKS_UNIT,
    BEFORE,
    CONFIG,
    CONFIG_DIR,
    DROPIN_FLAGS,
    SECOND,
    STARTED,
    UNIT,
    config,
    edited,
    evidence,
    of_process,
    process,
    touched,
    without,
)

DROPIN = f"{CONFIG_DIR}/10-a.conf"
WITH_DROPIN = evidence(DROPIN_FLAGS, files={DROPIN: config()})
LINKED = evidence(
    files={"/opt/v1/kubelet.json": config()},
    links={CONFIG: "../../opt/current/kubelet.json", "/opt/current": "v1"},
)
RULES = service_rules(UNIT, (), {UNIT: AKS_UNIT})
MILLISECOND = 1_000_000


def read_by(seen: Evidence) -> Inputs:
    named = inputs(of_process(seen).argv, seen, of_process(seen).directory)
    assert isinstance(named, Inputs), named
    return named


def why(seen: Evidence, **rules: Any) -> str:
    return doubt(seen, of_process(seen), read_by(seen), replace(RULES, **rules))


def mark(seen: Evidence) -> str:
    return fingerprint(seen, of_process(seen), read_by(seen))


@pytest.mark.parametrize(
    "seen", [evidence(), WITH_DROPIN, LINKED, evidence(unit="[Service]\nExecStart=/opt/bin/kubelet\n")]
)
def test_what_nothing_has_touched_since_is_proved(seen: Evidence) -> None:
    assert why(seen) == ""


@pytest.mark.parametrize(
    ("milliseconds", "proved"), [(-21, True), (-20, False), (-1, False), (0, False), (400, False), (1400, False)]
)
def test_there_is_no_second_of_grace(milliseconds: int, proved: bool) -> None:
    """Only the kernel's coarse clock, 20 ms, is allowed for, and against the proof."""
    assert (why(touched(evidence(), CONFIG, STARTED + milliseconds * MILLISECOND)) == "") is proved


@pytest.mark.parametrize("step", [-86_400, -60, -2, 2, 60, 86_400])
def test_a_clock_that_was_set_counts_against_the_proof(step: int) -> None:
    """A file changed after the start has a time before it where the clock was set back meanwhile, and other ways."""
    seen = evidence()
    stepped = replace(seen, collected=seen.collected + step * SECOND)
    outside, inside = STARTED - (abs(step) * 1000 + 21) * MILLISECOND, STARTED - (abs(step) * 1000 + 19) * MILLISECOND
    far = dict.fromkeys(stepped.directories, outside)
    stepped = replace(stepped, directories=far)
    assert why(touched(stepped, CONFIG, outside)) == ""
    assert f"the clock was set by {abs(step)} s since" in why(touched(stepped, CONFIG, inside))


@pytest.mark.parametrize("changes", [{"started": None}, {"started_monotonic": None}])
def test_without_the_start_time_no_file_is_proved(changes: dict[str, None]) -> None:
    assert "is not known" in why(process(evidence(), **changes))
    assert "is not known" in why(replace(evidence(), uptime=0))
    assert why(process(evidence(unit="[Service]\nExecStart=/opt/bin/kubelet\n"), **changes)) == "", "it read no file"


@pytest.mark.parametrize("link", [CONFIG, "/opt/current"])
def test_every_link_on_the_way_counts(link: str) -> None:
    assert f"the link {link} on the way" in why(touched(LINKED, link))


def test_where_links_lead() -> None:
    links = {path: Link(target, 0) for path, target in {"/a": "b/c", "/b/c": "/d/../e", "/loop": "loop"}.items()}
    met = way("/a/x", links)
    assert (met.links, met.end) == (("/a", "/b/c"), "/e/x")
    assert set(met.directories) >= {"/b", "/d", "/e"}
    assert way("/loop/x", links).end is None
    assert way("/../../x", {}).end == "/x"
    assert "/e" in way("/a/", links).directories
    assert "/e" not in way("/a", links).directories


def test_a_loop_of_links_is_no_proof() -> None:
    seen = replace(LINKED, links={**LINKED.links, "/opt/current": Link("current", BEFORE)})
    assert "more links than the kernel follows" in why(seen)


@pytest.mark.parametrize(
    ("path", "directory", "named"),
    [
        ("/etc//default/./x", "/", "/etc/default/x"),
        ("x", "/etc/default", "/etc/default/x"),
        ("../x", "/etc/default", "/etc/x"),
        ("//x", "/", "/x"),
    ],
)
def test_names(path: str, directory: str, named: str) -> None:
    assert absolute(path, directory) == named
    assert absolute_directory(f"{path}/", directory) == f"{named}/"


def test_a_directory_put_in_another_s_place() -> None:
    """Renaming moves the times of both; a new entry moves the directory's own only."""
    seen = evidence()
    assert why(touched(seen, "/etc/default")) == ""
    assert why(touched(seen, "/etc")) == ""
    replaced = touched(touched(seen, "/etc/default"), "/etc")
    assert "the directory /etc/default on the way" in why(replaced)
    assert why(touched(seen, "/")) == "", "the root is always the same"
    assert "the directory /etc on the way" in why(touched(touched(seen, "/"), "/etc"))
    assert why(replace(seen, directories={})), "what was not collected proves nothing"


@pytest.mark.parametrize(
    ("mount", "proved"),
    [
        (Mount(CONFIG, "/opt/old.json", "ext4", "/dev/sda1", same=False), False),
        (Mount("/etc/default", "/opt/other", "ext4", "/dev/sda1", same=False), False),
        (Mount("/etc", "/", "tmpfs", "tmpfs", same=False), False),
        (Mount("/etc", "/", "overlay", "overlay", same=False), True),
        (Mount("/etc", "/", "overlay", "confext", same=False), False),
        (Mount("/etc", "/opt/etc", "ext4", "/dev/sda1", same=False), False),
        (Mount("/etc", "/etc", "ext4", "/dev/sda1", same=True), True),
        (Mount("/srv", "/", "tmpfs", "tmpfs", same=False), True),
    ],
)
def test_mounts_on_the_way(mount: Mount, proved: bool) -> None:
    seen = replace(evidence(), mounts=(mount,))
    assert (why(seen) == "") is proved
    on_way = mount.point != "/srv"
    assert why(seen, mounted=(mount.point,)) == "", "the unit's own directives made it"
    gone = why(evidence(), mounted=(mount.point,))
    assert ("the process has no such mount" in gone) is on_way
    assert doubt(seen, of_process(seen), read_by(seen), None) == why(seen), "an unknown unit explains nothing"


def test_the_image_mounts_a_place_once() -> None:
    image = Mount("/etc", "/", "overlay", "overlay", same=False)
    assert why(replace(evidence(), mounts=(image,))) == ""
    assert "a mount at /etc" in why(replace(evidence(), mounts=(image, image)))


def test_a_deeper_mount_hides_the_unit_s_own() -> None:
    deep = Mount(CONFIG, "/", "tmpfs", "tmpfs", same=True)
    assert why(replace(evidence(), mounts=(deep,)), mounted=("/etc",)) == ""


def test_a_root_directory_of_its_own_shows_in_the_files() -> None:
    assert "is the host's" in why(evidence(), root_directory="/opt/root")
    assert why(evidence(), root_directory="/") == ""
    files = {path: replace(item, hosted=False) for path, item in evidence().files.items()}
    assert why(replace(evidence(), files=files), root_image="/opt/root.raw") == ""


def test_a_mount_over_a_directory_of_the_walk() -> None:
    inner = f"{CONFIG_DIR}/sub"
    listing = Listing((DROPIN,), (CONFIG_DIR, inner))
    seen = replace(
        WITH_DROPIN,
        listings={CONFIG_DIR: listing},
        directories={**WITH_DROPIN.directories, inner: BEFORE},
    )
    assert why(seen) == ""
    assert f"a mount at {inner}" in why(replace(seen, mounts=(Mount(inner, "/", "tmpfs", "tmpfs", same=False),)))


def test_a_directory_of_dropins_that_changed() -> None:
    """Whatever was put in or taken away: only a witness says whether the kubelet would have read it."""
    assert f"the directory {CONFIG_DIR} was changed" in why(touched(WITH_DROPIN, CONFIG_DIR))
    assert f"{DROPIN} was changed" in why(touched(WITH_DROPIN, DROPIN))


def test_a_listing_through_a_link() -> None:
    root = f"{CONFIG_DIR}/"
    links = {CONFIG_DIR: "../../opt/conf.d"}
    seen = evidence(f"--config-dir={root}", files={f"{CONFIG_DIR}/10-a.conf": config()}, links=links)
    assert set(seen.listings) == {root}
    assert "/opt/conf.d" in seen.directories
    assert why(seen) == ""
    assert f"the link {CONFIG_DIR} on the way" in why(touched(seen, CONFIG_DIR))
    assert f"the directory {CONFIG_DIR}" in why(touched(seen, "/opt/conf.d"))


def test_a_fingerprint_is_of_the_process_and_of_what_it_read() -> None:
    first = mark(WITH_DROPIN)
    assert len(first) == 64
    assert mark(touched(touched(WITH_DROPIN, DROPIN), CONFIG_DIR)) == first, "metadata does not count"
    others = [
        edited(WITH_DROPIN, DROPIN, config(maxPods=1)),
        edited(WITH_DROPIN, CONFIG, config(maxPods=1)),
        process(WITH_DROPIN, pid=4243),
        process(WITH_DROPIN, ticks=10_001),
        process(WITH_DROPIN, boot_id="another"),
        process(WITH_DROPIN, argv=(*of_process(WITH_DROPIN).argv, "--v=3")),
        process(WITH_DROPIN, version="v1.36.4"),
        evidence(DROPIN_FLAGS, files={DROPIN: config(), f"{CONFIG_DIR}/20-b.conf": config()}),
        evidence(DROPIN_FLAGS),
    ]
    assert len({first, *map(mark, others)}) == len(others) + 1


@pytest.mark.parametrize("changes", [{"boot_id": ""}, {"pid": 0}, {"ticks": 0}])
def test_a_process_without_a_name_has_no_fingerprint(changes: dict[str, object]) -> None:
    assert mark(process(evidence(), **changes)) == ""


def test_content_that_is_not_utf_8_has_a_fingerprint() -> None:
    odd = process(evidence(), argv=(*of_process(evidence()).argv, "--hostname-override=M\udcfcller"))
    assert len(mark(odd)) == 64


def test_what_a_command_line_names_is_all_there_or_it_says_what_is_not() -> None:
    for seen, code, fails in (
        (without(evidence(), CONFIG), "config_unreadable", False),
        (without(evidence(), CONFIG, gone=True), "config_unreadable", True),
        (without(WITH_DROPIN, DROPIN, gone=True), "config_unreadable", True),
        (without(WITH_DROPIN, DROPIN), "config_unreadable", False),
        (replace(WITH_DROPIN, listings={}), "listing_unknown", False),
        (replace(WITH_DROPIN, listings={CONFIG_DIR: None}), "listing_unknown", False),
        (replace(WITH_DROPIN, listings={}, gone=frozenset({CONFIG_DIR})), "config_unreadable", True),
    ):
        trouble = inputs(of_process(seen).argv, seen, "/")
        assert not isinstance(trouble, Inputs)
        assert (trouble.code, trouble.fails) == (code, fails)
    big = replace(evidence().files[CONFIG], whole=False, size=70_000)
    trouble = inputs(of_process(evidence()).argv, replace(evidence(), files={CONFIG: big}), "/")
    assert not isinstance(trouble, Inputs)
    assert trouble.code == "too_large"
    assert "a limit of this tool" in trouble.reason


def test_a_relative_name_starts_in_the_working_directory() -> None:
    unit = "[Service]\nWorkingDirectory=/etc/default\nExecStart=/opt/bin/kubelet --config=kubeletconfig.json\n"
    seen = evidence(unit=unit, directory="/etc/default", files={"/kubeletconfig.json": config(maxPods=1)})
    assert read_by(seen).paths == (CONFIG,)
    assert AFTER > STARTED > BEFORE

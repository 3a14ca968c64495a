"""What is remembered changes no verdict, lets no node speak for another, and does not grow with the fleet."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.controls import control, judge
from shared.controls.inputs import canonical
from shared.controls.paths import Way, _walked, way
from shared.kubelet import Resolution, config_paths, resolve
from shared.kubelet.minors import every_flag, minor_rules
from shared.kubelet.versions import modelled_minors
from shared.models import Evidence, Health, Link
from shared.remembered import forget, remembered_weight
from tests.support.evidence import (
    AFTER,
    AKS_UNIT,
    BEFORE,
    CONFIG,
    CONFIG_DIR,
    ENVIRONMENT,
    UNIT,
    config,
    edited,
    evidence,
    process,
    touched,
)

CONTROL = control("3.2.6")
TRUE, FALSE = "--make-iptables-util-chains=true", "--make-iptables-util-chains=false"

_FLAGS = st.sampled_from(
    (
        *(TRUE, FALSE, "--make_iptables_util_chains=0", "--v=2", "--max-pods=30", "--node-ip=10.0.0.4", "-v=2"),
        *("--node-ip=10.0.0.77", "--node-ip=10.0.0.5,fd00::1", "--node-ip=", "--node-ip=none", "--node-ip"),
        *("--node_ip=10.0.0.4", "--cluster-domain", "--cluster-domain=x", "--node-labels=a=xx,b=*", "--node-labels"),
        *("--hostname-override=n1", "--hostname-override", "--unknown", "--read-only-port=x", "--config"),
        *(f"--config-dir={CONFIG_DIR}", "stray", "-h"),
    )
)
_CONFIGS = st.sampled_from(
    (
        config(),
        config(makeIPTablesUtilChains=True),
        config(makeIPTablesUtilChains=False),
        config(makeIPTablesUtilChains="no"),
        config(healthzPort=0),
        config(authentication={"x509": {"clientCAFile": "/etc/ca.crt"}}),
        "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nmakeIPTablesUtilChains: false\n",
        "{",
    )
)
_UNITS = st.sampled_from(
    (
        AKS_UNIT,
        AKS_UNIT + "WorkingDirectory=/var\n",
        AKS_UNIT + 'Environment="KUBELET_FLAGS=--node-ip=10.0.0.9"\n',
        AKS_UNIT + "UnsetEnvironment=KUBELET_FLAGS\n",
        AKS_UNIT + "ExecStartPre=/bin/sh -c 'echo 1'\nBindPaths=/a:/etc/default\n",
        "[Unit]\nConditionPathExists=/x\n" + AKS_UNIT,
        AKS_UNIT.replace(" $KUBELET_FLAGS", " ${KUBELET_FLAGS}"),
        AKS_UNIT.replace(" $KUBELET_FLAGS", " --node-ip=10.0.0.%i $KUBELET_FLAGS"),
        "[Service]\n",
    )
)


@st.composite
def nodes(draw: st.DrawFn) -> Evidence:
    """A node that was looked at, also after something happened to it."""
    given_flags = draw(st.lists(_FLAGS, max_size=5))
    unit = draw(_UNITS)
    text = draw(_CONFIGS)
    argv = None
    if draw(st.integers(0, 3)) == 0 or "ExecStart" not in unit:
        argv = ("/opt/bin/kubelet", *draw(st.lists(_FLAGS, max_size=5)))
    seen = evidence(" ".join(given_flags), text, unit, argv=argv)
    for happening in draw(st.lists(st.integers(0, 9), max_size=3)):
        match happening:
            case 0:
                seen = edited(seen, CONFIG, draw(_CONFIGS))
            case 1:
                seen = edited(seen, ENVIRONMENT, f"KUBELET_FLAGS={' '.join(draw(st.lists(_FLAGS, max_size=4)))}\n")
            case 2:
                seen = touched(seen, draw(st.sampled_from((CONFIG, ENVIRONMENT, UNIT))), draw(_TIMES))
            case 3:
                seen = process(seen, version=draw(st.sampled_from(("v1.31.1", "v1.33.5", "v1.99.0", ""))))
            case 4:
                seen = process(seen, pid=draw(st.integers(1, 9)), ticks=draw(st.integers(0, 9)))
            case 5:
                seen = replace(seen, health=(Health("127.0.0.1", 10248, draw(st.sampled_from(("ok", "")))),))
            case 6:
                seen = replace(seen, systemd_version=draw(st.sampled_from((None, 249, 255))))
            case 7:
                seen = replace(seen, exists={"/etc/ca.crt": draw(st.booleans())})
            case 8:
                seen = replace(seen, needs_daemon_reload=draw(st.booleans()))
            case 9:
                seen = replace(seen, links={"/etc/default": Link("/run", draw(_TIMES))})
    return seen


_TIMES = st.sampled_from((BEFORE, AFTER, AFTER + 1))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget()
    yield
    forget()


@settings(max_examples=150)
@given(st.lists(nodes(), min_size=2, max_size=6), st.sampled_from((None, "1.33.5")))
def test_no_verdict_changes(fleet: list[Evidence], version: str | None) -> None:
    """Whatever other nodes were judged before, and with the proof of an earlier look too."""
    remembered = [judge(CONTROL, seen, version) for seen in fleet]
    again = [judge(CONTROL, seen, version, first.proof) for seen, first in zip(fleet, remembered, strict=True)]
    for seen, first, second in zip(fleet, remembered, again, strict=True):
        forget()
        assert judge(CONTROL, seen, version) == first
        forget()
        assert judge(CONTROL, seen, version, first.proof) == second


_ARGUMENTS = st.lists(st.one_of(_FLAGS, st.just("--"), st.just("-"), st.just("--config=x")), max_size=8)


@settings(max_examples=300)
@given(_ARGUMENTS, st.sampled_from(modelled_minors()))
def test_a_node_s_own_address_decides_nothing(flags: list[str], minor: int) -> None:
    argv = ["kubelet", *flags]
    blank = canonical(argv)
    assert list(map(len, blank)) == list(map(len, argv))
    assert config_paths(argv) == config_paths(blank)
    one, other = (resolve(arguments, {"/x": config()}, version=f"1.{minor}.0") for arguments in (argv, blank))
    assert _comes_to(one) == _comes_to(other)


def _comes_to(made: Resolution) -> object:
    paths = made.settings()
    values = [(made.value(path), made.source(path)) for path in paths] if made.accepted else []
    return made.error, made.limit, made.files_read, values, [made.assignments(path) for path in paths]


def test_a_node_s_own_address_is_blanked_as_aks_writes_it() -> None:
    argv = ("kubelet", "--kubeconfig", "/a", "--v=2", "--node-ip=10.224.0.4")
    assert canonical(argv)[-1] == "--node-ip=0000000000"
    for before in ("--cluster-domain", "-v", "-", "--"):
        assert canonical((*argv[:-1], before, argv[-1]))[-1] == argv[-1]


def test_the_flag_is_the_kubelet_s_own_in_every_minor() -> None:
    for flags in (every_flag(), *(minor_rules(minor).flags for minor in modelled_minors())):
        flag = flags.by_name["node-ip"]
        assert (flag.kind, flag.scope, flag.alone) == ("string", "kubelet", "")


_PATHS = st.lists(st.sampled_from(("a", "b", "..", ".", "")), max_size=6).map(lambda names: "/" + "/".join(names))


@given(_PATHS, st.dictionaries(_PATHS, st.sampled_from(("/b", "..", "a/b", "/"))))
def test_the_way_of_a_path(path: str, targets: dict[str, str]) -> None:
    links = {place: Link(target, BEFORE) for place, target in targets.items()}
    assert way(path, links) == _walked(path, links)
    assert isinstance(way(path, links), Way)


_MANY = {f"k{item}": "1" for item in range(500)}
_NOT_ALIKE: tuple[Callable[[int], Evidence], ...] = (
    lambda number: evidence(f"--v=2 --max-pods={number}"),
    lambda number: evidence("--v=2", config(systemReserved=_MANY, maxPods=number)),
    lambda number: evidence("--v=2", config(clusterDNS=["1"] * 1_000, maxPods=number)),
    lambda number: evidence("--v=2", unit=f"{AKS_UNIT}Environment=A{number}={'b' * 30_000}\n"),
    lambda number: evidence("--v=2", unit=f"{AKS_UNIT}# {number}\nEnvironment={'A=b ' * 300}\n" + "A=b\n" * 300),
)


@pytest.mark.parametrize("make", _NOT_ALIKE)
def test_what_is_kept_is_not_heavier_than_it_is_said_to_be(make: Callable[[int], Evidence]) -> None:
    """So that the bound on the weight is one on memory."""
    judge(CONTROL, make(1))
    forget()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(10, 16):
            judge(CONTROL, make(number))
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held <= 1.1 * remembered_weight()
    assert remembered_weight() < 6 * 2_000_000

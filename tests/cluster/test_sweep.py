"""The script that goes into a cluster: what it is made of, and what it refuses to be made of."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from shared.cluster import NODES_A_CALL, sweep_script
from tests.support.require import require

NONCE = "0123456789abcdef"


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["staticPodURL"],
        ["makeIPTablesUtilChains", "staticPodURLHeader"],
        ["a'b"],
        ["$(id)"],
        ["a..b"],
        [".a"],
        ["a b"],
        ["a\nb"],
        [f"a{number}" for number in range(101)],
    ],
)
def test_what_is_no_setting_or_a_secret_is_not_asked_for(settings: list[str]) -> None:
    with pytest.raises(ValueError, match="not settings"):
        sweep_script(settings, "direct", NONCE)


@pytest.mark.parametrize(
    "names", [[], ["A"], ["a'; id; '"], ["-a"], ["a" * 254], ["a"] * (NODES_A_CALL + 1), ["a\n"], ["a/b"]]
)
def test_what_is_no_name_of_a_node_is_not_asked(names: list[str]) -> None:
    with pytest.raises(ValueError, match="not the names"):
        sweep_script(["a"], "direct", NONCE, nodes=names)


def test_no_other_word_gets_into_it() -> None:
    with pytest.raises(ValueError, match="not the names"):
        sweep_script(["a"], "direct", NONCE, after="a'")
    with pytest.raises(ValueError, match="not a nonce"):
        sweep_script(["a"], "direct", "'")
    with pytest.raises(ValueError, match="not a way"):
        sweep_script(["a"], "both", NONCE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a service account"):
        sweep_script(["a"], "direct", NONCE, account="a")


@pytest.mark.parametrize("way", ["direct", "proxy"])
def test_shellcheck_finds_nothing(way: str) -> None:
    checker = shutil.which("shellcheck")
    require(checker is not None, "shellcheck is not installed")
    script = sweep_script(["a.b", "c"], way, NONCE, nodes=["n1"], after="n0")  # type: ignore[arg-type]
    # The settings are JSON: their quotes are meant as they are.
    quoted = "--exclude=SC2089,SC2090"
    done = subprocess.run([str(checker), "--shell=sh", quoted, "-"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    inner = script.partition("ask_program() {\ncat <<'PROGRAM'\n")[2].partition("PROGRAM\n")[0]
    done = subprocess.run(
        [str(checker), "--shell=sh", "--exclude=SC2154", "-"], input=inner, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_it_is_small_and_a_pods_arguments_would_not_change_it() -> None:
    """Kubernetes replaces `$(NAME)` by a variable of the container and `$$` by `$` in a container's arguments."""
    script = sweep_script(["a.b"], "direct", NONCE)
    assert len(script) < 16_000
    assert "$$" not in script
    assert not [name for name in re.findall(r"\$\((\w+)\)", script) if name.isupper()]

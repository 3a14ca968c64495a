"""Masking never changes a verdict, and no secret leaves a node: over texts as they are written, and in every place."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.resources import files
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.kubelet import resolve
from shared.kubelet.minors import every_flag, minor_rules
from shared.kubelet.schema import GoType
from shared.kubelet.versions import modelled_minors
from shared.node import evidence, frames
from shared.systemd import UnitError, start_command
from tests.support.folder_node import NONCE, FolderNode
from tests.support.require import require
from tests.support.written import (
    CANARY,
    config_text,
    damaged,
    environment_text,
    kubelet_configuration,
    unit_text,
)

MASK = str(files("shared.node").joinpath("mask.awk"))
SETTINGS = (
    *("makeIPTablesUtilChains", "readOnlyPort", "authentication.anonymous.enabled", "streamingConnectionIdleTimeout"),
    *("maxPods", "featureGates.NodeSwap", "rotateCertificates", "eventRecordQPS"),
)
UNIT, ENVIRONMENT, CONFIG = "/etc/systemd/system/kubelet.service", "/etc/default/kubelet", "/etc/k.json"

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
randoms = st.randoms(use_true_random=False)


def awk(raw: bytes, kind: str, keep: str = " ", find: str = "", continued: str = "") -> bytes:
    variables = (f"kind={kind}", f"keep={keep}", f"find={find}", f"continued={continued}")
    options = [word for variable in variables for word in ("-v", variable)]
    done = subprocess.run(
        ["awk", *options, "-f", MASK],
        input=raw,
        capture_output=True,
        check=True,
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
    )
    assert not done.stderr
    return done.stdout


def masked(raw: bytes, kind: str, keep: str = " ", continued: str = "") -> bytes:
    """As the collector masks a file: awk ends the last line, so where the file does not, it is cut again."""
    made = awk(raw, kind, keep, continued=continued)
    return made if raw.endswith(b"\n") else made.removesuffix(b"\n")


def text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def verdict(argv: list[str], config: bytes) -> tuple[object, ...]:
    """What the controls would be judged by."""
    resolution = resolve(argv, {CONFIG: text(config)}, version="1.36.3")
    if not resolution.accepted:
        return (bool(resolution.limit),)
    return tuple(resolution.value(setting) for setting in SETTINGS)


def unchanged_but_for_secrets(raw: bytes, made: bytes) -> None:
    assert len(made) == len(raw)
    kept = b" \t\r\n\"'{}[],:#-|>\\="
    assert [byte for byte in raw if byte in kept] == [byte for byte in made if byte in kept]


@many
@given(randoms)
def test_a_masked_config_says_the_same(random: Random) -> None:
    raw = config_text(random, kubelet_configuration(random)).encode()
    made = masked(raw, "config")
    unchanged_but_for_secrets(raw, made)
    assert verdict(["kubelet", "--config", CONFIG], made) == verdict(["kubelet", "--config", CONFIG], raw)
    assert CANARY.encode() not in made, text(made)


@many
@given(randoms)
def test_a_masked_config_with_slips_says_the_same(random: Random) -> None:
    raw = damaged(random, config_text(random, kubelet_configuration(random)))
    made = masked(raw, "config")
    assert len(made) == len(raw)
    assert verdict(["kubelet", "--config", CONFIG], made) == verdict(["kubelet", "--config", CONFIG], raw)


def started(unit: bytes, environment: bytes, version: int) -> list[str] | str:
    texts = {UNIT: text(unit), ENVIRONMENT: text(environment)}
    try:
        return [argument.text for argument in start_command(UNIT, (), texts, systemd_version=version).argv]
    except UnitError as error:
        return type(error).__name__


@many
@given(randoms, st.sampled_from([249, 255]), st.booleans())
def test_masked_units_and_environment_files_say_the_same(random: Random, version: int, slips: bool) -> None:
    unit = unit_text(random).encode()
    environment = environment_text(random)
    raw = damaged(random, environment) if slips else environment.encode()
    continued = "1" if version < 254 else ""
    keep = f" {' '.join(sorted(set(awk(unit, 'unit', find='uses').decode().split())))} "
    made_unit, made = masked(unit, "unit", keep), masked(raw, "environment", keep, continued)
    assert (len(made_unit), len(made)) == (len(unit), len(raw))
    before, after = started(unit, raw, version), started(made_unit, made, version)
    if isinstance(before, str) or isinstance(after, str):
        assert after == before
        return
    assert verdict(after, b"{}") == verdict(before, b"{}")
    if not slips:
        # What masked files start is what a masked process shows: the two can be compared.
        running = "".join(argument.replace("\n", "\x01") + "\n" for argument in before)
        shown = awk(running.encode("utf-8", "surrogateescape"), "arguments", keep)
        assert [line.replace("\x01", "\n") for line in text(shown).split("\n")[:-1]] == after
        assert CANARY.encode() not in made_unit + made + shown


STARTS = "ExecStart=/opt/bin/kubelet --make-iptables-util-chains=false\n"
BY_VARIABLE = "ExecStart=/opt/bin/kubelet $F\n"


@pytest.mark.parametrize(
    "unit",
    [
        f"[Service]\n# a comment\r{STARTS}",
        f"[Service]\rSetCredential=a:b\r{STARTS}",
        f"[Service]\nExecStartPre=/bin/a \\\r b\r{STARTS}",
        f"\ufeff[Service]\n{STARTS}",
        "[Service]\nEnvironment='F=--node-labels=a=b\\x20--make-iptables-util-chains=false'\n" + BY_VARIABLE,
        "[Service]\nEnvironment=F=--node-labels=a=b\\t--make-iptables-util-chains=false\n" + BY_VARIABLE,
    ],
)
def test_a_masked_unit_starts_the_same(unit: str) -> None:
    uses = awk(unit.encode(), "unit", find="uses").decode().split()
    shown = masked(unit.encode(), "unit", f" {' '.join(uses)} ")
    argv = started(unit.encode(), b"", 255)
    assert "--make-iptables-util-chains=false" in argv
    after = started(shown, b"", 255)
    assert isinstance(after, list)
    assert after[-1] == "--make-iptables-util-chains=false"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Description=of s3cret", "Description=** ******"),
        ("Documentation=https://u:s3cret@h/", "Documentation=*****://*:******@*/"),
        ("X-Token=s3cret", "X-Token=******"),
        ("token=s3cret", "token=******"),
        ("AssertCredential=name", "AssertCredential=name"),
        ("ExecStart=/bin/sh -c 'T=s3cret exec kubelet $F'", "ExecStart=/bin/sh -* '*=****** **** ******* $F'"),
        ('ExecStart=-"/usr/bin/env" T=s3cret kubelet', 'ExecStart=-"/usr/bin/env" *=****** *******'),
        ("ExecStart=/bin/kubelet-1.33.5 --v=2", "ExecStart=/bin/kubelet-1.33.5 --v=2"),
        ("ExecStart=kubelet --Api_Token s3 --v=2", "ExecStart=kubelet --Api_Token xx --v=2"),
        ("ExecStart=@kubelet s3 --v=2", "ExecStart=@kubelet s3 --v=2"),
        (
            "ExecStart=kubelet --manifest-url-header=A: Bearer s3 --v=2",
            "ExecStart=kubelet --manifest-url-header=x: xxxxxx xx --v=2",
        ),
        (
            "Environment=F=--manifest-url-header\\x20A:s3\\x20--v=2",
            "Environment=F=--manifest-url-header\\x20x:xx\\x20--v=2",
        ),
    ],
)
def test_unit_texts(written: str, shown: str) -> None:
    raw = f"[Service]\n{written}\n".encode()
    assert masked(raw, "unit", " F:plain ").decode() == f"[Service]\n{shown}\n"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('{"a": "https:\\/\\/u:c@h\\/?s=3"}', '{"a": "https:\\/\\/x:a@h\\/?x=1"}'),
        ('{"staticPodURLHeader":{"A":["s3cret"]},"b":false}', '{"staticPodURLHeader":{"A":["xxxxxx"]},"b":false}'),
        ('{"static\\u0050odURLHeader":{"A":["\\u0041"]}}', '{"static\\u0050odURLHeader":{"A":["\\u0078"]}}'),
        ("  a: b\n# staticPodURLHeader: see\n  c: false\n", "  a: b\n# ******************: ***\n  c: false\n"),
        ("staticPodURLHeader:\n- s3cret\nb: no\n", "staticPodURLHeader:\n- xxxxxx\nb: no\n"),
        ("staticPodURLHeader: {A: [yes, 12, x y]}\n", "staticPodURLHeader: {A: [yes, 11, x x]}\n"),
        ("? staticPodURLHeader\n: A: s3cret\nb: x\n", "? staticPodURLHeader\n: A: xxxxxx\nb: x\n"),
        ("h: &h {A: [s3]}\nstaticPodURLHeader: *h\nb: c\n", "h: &h {A: [xx]}\nstaticPodURLHeader: *h\nb: c\n"),
        ("a: |\n  # no comment\nb: 'x # y'\n", "a: |\n  # xx xxxxxxx\nb: 'x # y'\n"),
        ('a: "s3cret', 'a: "xxxxxx'),
        ("a: b # é\xff\n", "a: b # ×\xff\n"),
    ],
)
def test_config_texts(written: str, shown: str) -> None:
    raw = written.replace("\xff", "\udcff").encode("utf-8", "surrogateescape")
    assert masked(raw, "config").decode("utf-8", "surrogateescape") == shown.replace("\xff", "\udcff")


@pytest.mark.parametrize("end", ["\r", "\r\n", "\x85", "\u2028", "\u2029"])
def test_every_line_s_end_of_yaml(end: str) -> None:
    kind = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n"
    for before in ("# s3cret", "staticPodURL: s3cret", "staticPodURL: |2\n  s3cret", "x: y # s3cret"):
        raw = f"{kind}{before}{end}makeIPTablesUtilChains: false{end}maxPods: 7\n".encode()
        made = masked(raw, "config")
        assert b"s3cret" not in made
        assert b"makeIPTablesUtilChains: false" in made
        argv = ["kubelet", "--config", CONFIG]
        assert verdict(argv, made) == verdict(argv, raw) == (False, 0, False, "4h0m0s", 7, None, False, 50)


def settings_of(kind: GoType) -> set[str]:
    """The names of all fields in a type, and in the types within it."""
    inner = [kind.element] if kind.element is not None else []
    inner += [field.type for field in kind.fields.values()]
    return set(kind.fields).union(*map(settings_of, inner)) if inner else set()


@pytest.mark.parametrize("minor", modelled_minors())
def test_no_other_setting_of_a_kubelet_is_taken_for_a_secret(minor: int) -> None:
    names = settings_of(minor_rules(minor).configuration) - {"staticPodURL", "staticPodURLHeader"}
    assert "makeIPTablesUtilChains" in names
    text = "".join(f"{name}: word\n" for name in sorted(names))
    assert masked(text.encode(), "config").decode() == text


def test_no_other_flag_of_a_kubelet_is_taken_for_a_secret() -> None:
    names = sorted(every_flag().by_name)
    written = ["kubelet", *(f"--{name}=word" for name in names)]
    shown = awk("".join(f"{argument}\n" for argument in written).encode(), "arguments").decode().splitlines()
    changed = {name for name, was, now in zip(names, written[1:], shown[1:], strict=True) if was != now}
    assert changed <= {"manifest-url", "manifest-url-header", "storage-driver-password"}


@pytest.mark.parametrize("interpreter", ["mawk", "gawk", "busybox awk"])
def test_every_awk_masks_alike(interpreter: str) -> None:
    command = interpreter.split()
    if interpreter == "gawk" and shutil.which("gawk") is None:
        pytest.skip("gawk is not installed")
    require(shutil.which(command[0]) is not None, f"{command[0]} is not installed")
    for seed in range(20):
        random = Random(seed)
        raw = config_text(random, kubelet_configuration(random)).encode()
        options = ["-v", "kind=config", "-v", "keep= ", "-f", MASK]
        environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
        done = subprocess.run([*command, *options], input=raw, capture_output=True, check=True, env=environment)
        assert done.stdout == awk(raw, "config")


def test_the_words_of_another_program_stay_on_the_node(
    folder_node: FolderNode, shell: tuple[tuple[str, ...], str]
) -> None:
    command, path = shell
    folder_node.process("/bin/sh", "-c", f"curl -H 'A: {CANARY}' x; kubelet --config {CONFIG}", "--v", "2")
    process = folder_node.collect(*command, path=path).process
    assert process is not None
    assert process.argv == (
        "/bin/sh",
        "-*",
        f"**** -* '*: {'*' * len(CANARY)}' *; ******* --****** /***/*.****",
        "--*",
        "*",
    )


def test_nothing_secret_leaves_the_node(folder_node: FolderNode, shell: tuple[tuple[str, ...], str]) -> None:
    command, path = shell
    planted = iter(f"{CANARY}{number}" for number in range(100))

    def secret() -> str:
        return next(planted)

    dropin = f"{UNIT}.d/10-componentconfig.conf"
    folder_node.write(
        UNIT,
        f"# {secret()}\n[Unit]\nDescription=Kubelet\n[Service]\nEnvironmentFile=/etc/default/kubelet\n"
        f"ExecStartPre=/bin/other --config=/etc/other.conf --token {secret()} $TOKEN\n"
        f"ExecStartPost=/bin/sh -c '{secret()}'\n"
        f"ExecReload={secret()}\nExecStop=-{secret()}\nSetCredential=a:{secret()}\n"
        f"SetCredentialEncrypted=b: \\\n {secret()}\nstray {secret()}\n"
        f"ExecStart=/usr/bin/env /opt/bin/kubelet --config {CONFIG} --manifest-url-header=${{HEADER}} \\\n"
        f"  # {secret()}\n"
        f'  --manifest-url="https://u:{secret()}@h/{secret()}?sig={secret()}" $KUBELET_FLAGS\n',
    )
    folder_node.write(
        dropin,
        f'[Service]\nEnvironment="API_TOKEN={secret()}" KUBELET_FLAGS=--v=1\r\nEnvironment=A=http://u:p@{secret()}@h:1\n'
        f"Environment='B=one {secret()}' \\\n  \"C={secret()}\"\n",
    )
    folder_node.write(
        "/etc/default/kubelet",
        f"# {secret()}\nHEADER=Authorization:{secret()}\nTOKEN='{secret()}\n{secret()}'\n; {secret()}\n"
        f"export {secret()}\n"
        f"KUBELET_FLAGS=--v=2 --manifest-url-header=A:{secret()} --image-service-endpoint=unix://u:{secret()}@x?{secret()}\n",
    )
    folder_node.write("/etc/other.conf", secret())
    folder_node.write("/etc/third.conf", secret())
    kind = '"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"'
    folder_node.write(
        CONFIG,
        f'{{{kind}, "staticPodURLHeader": {{"A": ["{secret()}"]}}, "staticPodURL": "https://{secret()}/?{secret()}"}}',
    )
    folder_node.write(
        "/etc/k.d/1.conf",
        f"kind: KubeletConfiguration # {secret()}\napiVersion: kubelet.config.k8s.io/v1beta1\n"
        f"# {secret()}\nproviderID: https://u:{secret()}@h/?{secret()}\n",
    )
    folder_node.write("/etc/k.d/notes", secret())
    folder_node.manager_environment(f"TOKEN={secret()}", f"HEADER=X:{secret()}", f"OTHER=$'{secret()}\\n'")
    folder_node.journal(f"I1127 {secret()}\n")
    folder_node.process(
        *("/opt/bin/kubelet", f"--config={CONFIG}", "--config-dir", "/etc/k.d", f"--manifest-url-header=A:{secret()}"),
        *(
            "--manifest-url-header",
            f"A:{secret()}",
            f"--manifest-url=https://h/{secret()}",
            f"--node-labels=a={secret()}",
        ),
        *(f"--provider-id=azure://u:{secret()}@x/y?{secret()}#{secret()}", "--kubeconfig=/etc/third.conf"),
    )
    folder_node.unit(dropin)
    seen = b""
    parts: list[frames.Frame] = []
    while not parts or len(parts) < parts[0].parts:
        done = folder_node.run(frames.collect_script(len(parts) + 1, NONCE), *command, path=path)
        parts += frames.parse_streams(done.stdout.decode(), done.stderr.decode(), NONCE)
        seen += done.stdout + done.stderr
    payload = frames.unpack(parts)
    assert CANARY.encode() not in payload + seen, payload.decode(errors="replace")
    read = evidence.read(payload, parts[0].wall, parts[0].uptime)
    assert {UNIT, dropin, "/etc/default/kubelet", CONFIG, "/etc/k.d/1.conf"} == set(read.files)
    assert read.process is not None
    assert resolve(read.process.argv, read.texts, listing=lambda _: ["/etc/k.d/1.conf"], version="1.36.3").accepted
    assert int(next(planted).removeprefix(CANARY)) > 40

"""Configuration as people and tools write it: the same values in many texts, with secrets where secrets are found.

Every secret holds CANARY; nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

CANARY = "CANARY"

_SECRETS = (
    *(CANARY, f"Bearer {CANARY}", f"{CANARY}:b", f"{CANARY} # x", f"{CANARY}, [y]", f"{{{CANARY}}}", f"{CANARY}\\n"),
    *(f"é {CANARY} ü", "0x12", "12", "true", "null", "", "~", f"- {CANARY}", f"#{CANARY}", f"pa'{CANARY}"),
    *(f'q"{CANARY}', f"&{CANARY}", f"*{CANARY}", f"!{CANARY}", f"%{CANARY}", f"{CANARY}\n{CANARY} two"),
)
_COMMENTS = (f"# {CANARY}", f"#{CANARY}: x", f"# staticPodURLHeader: {CANARY}", f"# it's \"{CANARY}", "#")
_FLAGS = (
    *("--make-iptables-util-chains=false", "--make-iptables-util-chains=true", "--v=2", "--read-only-port=0"),
    *("--config /etc/k.json", "--config=/etc/k.json", f"--node-labels=a={CANARY},b.c/d={CANARY}x"),
    *(
        f"--node-labels a={CANARY}",
        f"--manifest-url=https://u:{CANARY}@h/p?{CANARY}",
        f"--manifest_url_header=A:{CANARY}",
    ),
    *(f"--manifest-url-header X-A:{CANARY}", f"--manifest-url-header='X-A:Bearer {CANARY}'", "--anonymous-auth=false"),
    *(f"--image-service-endpoint=unix://u:{CANARY}@x?{CANARY}", "--authentication-token-webhook=true"),
    f"--storage-driver-password={CANARY}",
)


def kubelet_configuration(random: Random) -> dict[str, Any]:
    """A configuration with a few settings, headers in it, and things that do not belong there."""

    def headers() -> dict[str, list[str]]:
        names = random.sample(["X-A", "Authorization", "a b", "staticPodURL", "n", "x.y/z"], random.randint(0, 3))
        return {name: [random.choice(_SECRETS) for _ in range(random.randint(0, 3))] for name in names}

    known = {
        "makeIPTablesUtilChains": random.random() < 0.5,
        "readOnlyPort": random.choice([0, 10255]),
        "authentication": {"anonymous": {"enabled": random.random() < 0.5}, "webhook": {"cacheTTL": "2m0s"}},
        "authorization": {"mode": random.choice(["Webhook", "AlwaysAllow"])},
        "streamingConnectionIdleTimeout": random.choice(["4h", "0s", "4h0m0s"]),
        "maxPods": random.choice([110, 30, "many"] if random.random() < 0.1 else [110, 30]),
        "clusterDNS": ["10.0.0.10", "10.0.0.11"],
        "featureGates": {"NodeSwap": random.random() < 0.5},
        "staticPodURL": random.choice([f"https://u:{CANARY}@h:80/p?sig={CANARY}#f", f"http://h/{CANARY}"]),
        "staticPodURLHeader": headers(),
        "StaticPodURLHeader": headers(),
        "providerID": "azure:///subscriptions/x",
        "unknownUrl": f"https://u:{CANARY}@h/x?{CANARY}",
        "registerWithTaints": [{"key": "a", "value": "b", "effect": "NoSchedule"}],
    }
    chosen = random.sample(sorted(known), random.randint(3, len(known)))
    items: list[tuple[str, object]] = [
        ("kind", "KubeletConfiguration"),
        ("apiVersion", "kubelet.config.k8s.io/v1beta1"),
    ]
    items += [(name, known[name]) for name in chosen]
    random.shuffle(items)
    return dict(items)


def config_text(random: Random, values: Mapping[str, Any]) -> str:
    """The values as JSON on one line or many, as YAML in flow or in blocks of any indentation, with comments."""
    form = random.random()
    if form < 0.2:
        separators = random.choice([(",", ":"), (", ", ": ")])
        return json.dumps(values, ensure_ascii=random.random() < 0.5, separators=separators)
    if form < 0.35:
        indents: tuple[int | str, ...] = (1, 2, 4, "\t")
        return json.dumps(values, indent=random.choice(indents), ensure_ascii=random.random() < 0.5)
    if form < 0.45:
        return _flow(random, values)
    lines = ["---"] if random.random() < 0.2 else []
    _block(random, values, random.choice([0, 0, 0, 1, 2, 5]), lines)
    newline = random.choice(["\n", "\n", "\n", "\r\n"])
    mark = "\N{ZERO WIDTH NO-BREAK SPACE}" if random.random() < 0.1 else ""
    return mark + newline.join(lines) + random.choice([newline, "", newline * 2])


def _scalar(random: Random, value: object) -> str:
    if value is None or isinstance(value, bool | int):
        words = {True: ["true", "True", "yes", "on"], False: ["false", "False", "no", "off"]}
        return random.choice(words[value]) if isinstance(value, bool) and random.random() < 0.3 else json.dumps(value)
    text = str(value)
    style = random.random()
    if style < 0.4 or not text or "\n" in text:
        return json.dumps(text, ensure_ascii=random.random() < 0.5)
    if style < 0.7:
        return "'" + text.replace("'", "''") + "'"
    plain = text.strip() == text and text[0] not in "-?~" and not set(text) & set(":#,[]{}\"'&*!|>%@`")
    return text if plain else json.dumps(text)


def _flow(random: Random, value: object) -> str:
    space = random.choice(["", " ", "  "])
    if isinstance(value, Mapping):
        inner = [f"{_scalar(random, name)}: {_flow(random, item)}" for name, item in value.items()]
        return f"{{{space}{(',' + (space or ' ')).join(inner)}{space}}}"
    if isinstance(value, list):
        return f"[{space}{(',' + (space or ' ')).join(_flow(random, item) for item in value)}{space}]"
    return _scalar(random, value)


def _block(random: Random, value: object, indent: int, lines: list[str]) -> None:
    pad = " " * indent

    def comment() -> None:
        # Not behind a block scalar: there it may be a part of it.
        if random.random() < 0.15 and not any(sign in (lines[-1:] or [""])[0] for sign in ("|", ">", "  ")):
            lines.append(" " * random.randint(0, 8) + random.choice(_COMMENTS))

    def scalar_lines(head: str, text: str, depth: int) -> None:
        lines.append(f"{head}{random.choice('|>')}{random.choice(['', '-', '+'])}")
        lines.extend(" " * depth + line if line else "" for line in text.split("\n"))

    if isinstance(value, Mapping):
        for name, item in value.items():
            comment()
            tail = f" {random.choice(_COMMENTS)}" if random.random() < 0.15 else ""
            head = f"{pad}{_scalar(random, name)}:"
            if isinstance(item, Mapping) and item and random.random() < 0.7:
                lines.append(head + tail)
                _block(random, item, indent + random.randint(1, 4), lines)
            elif isinstance(item, list) and item and random.random() < 0.7:
                lines.append(head + tail)
                _block(random, item, indent + random.choice([0, 0, 2]), lines)
            elif isinstance(item, str) and item.strip() and item[0] not in " \n" and random.random() < 0.2:
                scalar_lines(f"{head} ", item, indent + 2)
            elif isinstance(item, str) and random.random() < 0.1:
                lines.extend((head, " " * (indent + 2) + _scalar(random, item) + tail))
            else:
                lines.append(f"{head} {_flow(random, item)}{tail}")
    else:
        assert isinstance(value, list)
        for item in value:
            if isinstance(item, str) and item.strip() and item[0] not in " \n" and random.random() < 0.2:
                scalar_lines(f"{pad}- ", item, indent + 2)
            else:
                lines.append(f"{pad}- {_flow(random, item)}")


def _continued(random: Random, line: str) -> str:
    spaces = [index for index, character in enumerate(line) if character == " "]
    if not spaces or random.random() < 0.7:
        return line
    at = random.choice(spaces)
    comment = random.choice(["", f"# {CANARY}\n", f"  ; {CANARY} 'x\n"])
    return f"{line[:at]} \\\n{comment}  {line[at:]}"


def _flags(random: Random) -> str:
    return random.choice([" ", "  "]).join(random.sample(_FLAGS, random.randint(0, 5)))


def environment_text(random: Random) -> str:
    """An environment file: the kubelet's variables, and others, in any quoting."""
    values = {
        "KUBELET_FLAGS": _flags(random),
        "EXTRA": _flags(random),
        "KUBELET_NODE_LABELS": f"a={CANARY},b={CANARY}2",
        "HEADER": f"X-A:Bearer {CANARY}",
        "URL": f"https://u:{CANARY}@h/?{CANARY}",
        "TOKEN": random.choice([CANARY, f"{CANARY} two", f"{CANARY}\\\n more {CANARY}"]),
    }
    lines = []
    for name in random.sample(sorted(values), random.randint(2, len(values))):
        if random.random() < 0.3:
            lines.append(random.choice([f"# {CANARY}", f'; {CANARY}="x', f"#{CANARY}'", f"  # {CANARY} \\"]))
        value = values[name]
        quote = random.random()
        if quote > 0.7 and "'" not in value:
            value = f"'{value}'"
        elif quote > 0.4:
            value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        lines.append(f"{random.choice(['', '  '])}{name}{random.choice(['=', ' = '])}{value}")
    if random.random() < 0.2:
        lines.append(f"export {CANARY}")
    return "\n".join(lines) + random.choice(["\n", ""])


def unit_text(random: Random) -> str:
    """A unit that starts a kubelet, with other commands, variables and credentials."""
    others: Sequence[str] = (
        f"ExecStartPre=/bin/sh -c '{CANARY}' --config=/etc/{CANARY} $TOKEN",
        f"SetCredential=a:{CANARY}",
        f'Environment="TOKEN={CANARY} it" X={CANARY} EXTRA=--v=4',
        f"Environment='EXTRA=--manifest-url-header=X-A:{CANARY} --v=4' TOKEN={CANARY}\\x41{CANARY}",
        f"ExecStartPost=-/bin/{CANARY}",
        f"# {CANARY}",
        f'Environment=HEADER=X-A:{CANARY} "URL=https://{CANARY}/?{CANARY}"',
        f"ExecReload=/bin/kill {CANARY}",
    )
    words = (
        *("$KUBELET_FLAGS", "$EXTRA", "--manifest-url-header=${HEADER}", "--manifest-url ${URL}", "--v=3"),
        *(f'"--manifest-url-header=X: Bearer {CANARY} $$"', "--manifest-url-header X-B:CAN\\x41RY"),
        f"--node-labels=a={CANARY}",
    )
    command = " ".join(random.sample(words, random.randint(1, len(words))))
    lines = ["[Unit]", "Description=Kubelet", random.choice([f"; {CANARY} \\", f'#{CANARY} "x'])]
    lines += ["[Service]", "EnvironmentFile=-/etc/default/kubelet"]
    lines += [_continued(random, line) for line in random.sample(others, random.randint(0, 3))]
    lines.append(_continued(random, f'ExecStart=/opt/bin/kubelet --node-labels="${{KUBELET_NODE_LABELS}}" {command}'))
    return "\n".join(lines) + "\n"


def damaged(random: Random, text: str) -> bytes:
    """The text after a few slips: bytes lost, put in, or written twice."""
    raw = bytearray(text.encode())
    bits = (
        *(b" ", b"\n", b"'", b'"', b":", b": ", b"#", b" #", b"{", b"}", b"[", b"]", b",", b"- ", b"|", b"\t"),
        *(b"\xff", b"\xc2", b"&a ", b"*a", b"---\n", b"? ", b"\\", b"%YAML 1.2\n"),
    )
    for _ in range(random.randint(1, 3)):
        at, slip = random.randrange(len(raw) + 1), random.random()
        if slip < 0.4:
            del raw[at : at + random.randint(1, 4)]
        elif slip < 0.8:
            raw[at:at] = random.choice(bits)
        else:
            copied = random.randrange(len(raw) + 1)
            raw[at:at] = raw[copied : copied + random.randint(1, 40)]
    return bytes(raw)

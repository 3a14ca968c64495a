"""Reading files: JSON and YAML by content, as Go's encoding/json and go-yaml v2 do; both printed what is expected."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.kubelet.document import read_document
from shared.kubelet.json_text import parse_json
from shared.kubelet.tree import MAX_DEPTH, Budget, DocumentError, LimitError, Node
from shared.kubelet.yaml_text import parse_yaml


def plain(node: Node) -> object:
    """The node as json.loads would give it."""
    if node.kind == "null":
        return None
    if node.kind == "bool":
        return node.truth
    if node.kind == "number":
        return json.loads(node.text)
    if node.kind == "string":
        return node.text
    if node.kind == "array":
        return [plain(item) for item in node.items]
    return {name: plain(value) for name, value in node.members}


def yaml_node(text: str) -> Node:
    return parse_yaml("f", text, Budget())[0]


def json_node(text: str) -> Node:
    return parse_json("f", text, Budget())


def from_yaml(text: str) -> object:
    return plain(yaml_node(text))


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        ("y", True), ("Yes", True), ("on", True), ("TRUE", True), ("n", False), ("NO", False), ("Off", False),
        ("tRue", "tRue"), ("~", None), ("Null", None), ("", None), ("nULL", "nULL"), ("1", 1), ("+5", 5), ("010", 8),
        ("0o17", 15), ("0x1F", 31), ("-0x1F", -31), ("0b101", 5), ("-0b11", -3), ("1_000", 1000), ("08", 8),
        ("09.5", 9.5), ("1.0", 1), ("1e3", 1000), ("1E+2", 100), (".5", 0.5), ("5.", 5), ("+.5", 0.5), ("._5", "._5"),
        (".5_0", 0.5), ("9223372036854775807", 2**63 - 1), ("18446744073709551615", 2**64 - 1), ("1e400", "1e400"),
        ("12:30", "12:30"), ("2001-01-01", "2001-01-01"), ("=", "="), ("<<", "<<"), ('"true"', "true"), ("'no'", "no"),
        ("!!str true", "true"), ('!!bool "yes"', True), ('!!int "5"', 5), ("!!float 5", 5), ("!foo 5", "5"),
        ("! 5", "5"), ("!!binary aGk=", "hi"), ("!!timestamp 2001-01-01", "2001-01-01"),
        ("!<tag:yaml.org,2002:bool> on", True), ("true # c", True),
        ("true#c", "true#c"), ("a b\tc", "a b\tc"), ("\ttrue", True), ('"\\\'"', "'"),
        ("'it''s'", "it's"), ("|\n  a\n  b\n", "a\nb\n"), (">\n  a\n  b\n", "a b\n"), ("a\n  b\n\n  c", "a b\nc"),
    ],
)  # fmt: skip
def test_yaml_scalars(scalar: str, expected: object) -> None:
    assert from_yaml(f"a: {scalar}") == {"a": expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", {"a": 2}),
        ("yes: 1\n2: b\n1.5: c\n", {"true": 1, "2": "b", "1.5": "c"}),
        # what comes later counts: a merge key after a key of its own overrides it
        (
            "x: &x {p: 1, q: 2}\nw: {<<: *x, q: 3}\nz: {q: 3, <<: *x}\n",
            {"x": {"p": 1, "q": 2}, "w": {"p": 1, "q": 3}, "z": {"p": 1, "q": 2}},
        ),
        # of a list of merged maps the first counts
        (
            "x: &x {p: 1}\nw: &y {p: 2, q: 2}\nz: {<<: [*x, *y]}\n",
            {"x": {"p": 1}, "w": {"p": 2, "q": 2}, "z": {"p": 1, "q": 2}},
        ),
        ("x: &a false\nw: *a\n", {"x": False, "w": False}),
        ("a: 1\n---\nb: 2\n", {"a": 1}),
        ("a: 1\n...\n]]]\n", {"a": 1}),
        ("# nothing\n", None),
        ("", None),
        ("\ufeffa: 1\n", {"a": 1}),
        ("\ufeff{\t\"a\":\t[1,\n\t2]}", {"a": [1, 2]}),
        ("a:\tb\n", {"a": "b"}),
        ("{a: 1, b}\n", {"a": 1, "b": None}),
        ("[a, b: c]\n", ["a", {"b": "c"}]),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("? a\n: b\n", {"a": "b"}),
        ("%YAML 1.1\n---\na: 1\n", {"a": 1}),
    ],
)  # fmt: skip
def test_yaml_documents(text: str, expected: object) -> None:
    assert from_yaml(text) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: b: c\n", "yaml: mapping values are not allowed in this context"),
        ("a: 1\nb: c: d\n", "yaml: line 2: mapping values are not allowed in this context"),
        ("a: true\n\tb: false\n", "yaml: line 2: found a tab character that violates indentation"),
        ("\ta: 1\n", "yaml: found character that cannot start any token"),
        ("a: *b\n", "yaml: unknown anchor 'b' referenced"),
        ("a: &a [*a]\n", "yaml: anchor 'a' value contains itself"),
        ("a: !!bool 1\n", "yaml: cannot decode !!int `1` as a !!bool"),
        ("a: .nan\n", "json: unsupported value: NaN"),
        ("a: -.inf\n", "json: unsupported value: -Inf"),
        ("~: 1\n", 'unsupported map key "~"'),
        ("{a: 1}: 2\n", "yaml: invalid map key"),
        ("a: {<<: 1}\n", "yaml: map merge requires map or sequence of maps as the value"),
        ("a: \x07\n", "yaml: control characters are not allowed"),
        ('a: "\\ud800"\n', "yaml: found invalid Unicode character escape code"),
        ('a: "\\UFFFFFFFF"\n', "yaml: found invalid Unicode character escape code"),
        ("a: !!binary '*'\n", "yaml: !!binary value contains invalid base64 data"),
        ("%FOO\n---\na: 1\n", "yaml: found unknown directive name"),
        ("a: [1, 2\n", "yaml: line 1: did not find expected ',' or ']'"),
    ],
)
def test_yaml_errors(text: str, error: str) -> None:
    with pytest.raises(DocumentError) as caught:
        yaml_node(text)
    assert str(caught.value).replace("line 1: ", "").startswith(error.replace("line 1: ", ""))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "unexpected end of JSON input"),
        ('{"a": 1,}', "invalid character '}' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a": 1} {', "invalid character '{' after top-level value"),
        ('{"a": tru}', "invalid character '}' in literal true (expecting 'e')"),
        ('{"a": "x', "unexpected end of JSON input"),
        ('{"a": [1 2]}', "invalid character '2' after array element"),
        ('{"a": 1 "b"}', "invalid character '\"' after object key:value pair"),
        ('{"a": 1.}', "invalid character '}' after decimal point in numeric literal"),
        ('{"a": 1ex}', "invalid character 'x' in exponent of numeric literal"),
        ('{"a": -}', "invalid character '}' in numeric literal"),
        ('{"a": 01}', "invalid character '1' after object key:value pair"),
        ('{"a": "\\x"}', "invalid character 'x' in string escape code"),
        ('{"a": "\\u00g0"}', "invalid character 'g' in \\u hexadecimal character escape"),
        ('{"a": "\n"}', "invalid character '\\n' in string literal"),
        ("{'a': 1}", "invalid character '\\'' looking for beginning of object key string"),
        ('{"a": // c', "invalid character '/' looking for beginning of value"),
        ("[" * (MAX_DEPTH + 1), "exceeded max depth"),
    ],
)
def test_json_errors(text: str, error: str) -> None:
    with pytest.raises(DocumentError) as caught:
        json_node(text)
    assert str(caught.value) == error


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcXYZ. \u00e9", max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON_VALUES, st.sampled_from([None, 2]))
def test_json_reads_what_json_writes(value: object, indent: int | None) -> None:
    assert plain(json_node(json.dumps(value, indent=indent))) == value
    assert plain(json_node(json.dumps(value, indent=indent, ensure_ascii=False))) == value


@given(JSON_VALUES)
def test_a_json_object_read_as_yaml_is_the_same(value: object) -> None:
    """Only where no character needs two escapes: YAML knows no surrogates."""
    text = json.dumps({"key": value}, indent=1)
    assume("\\ud" not in text)
    assert from_yaml(f"\ufeff{text}") == {"key": value}


@given(st.dictionaries(st.text("abcXYZ", min_size=2), JSON_VALUES, max_size=4))
def test_yaml_reads_what_pyyaml_writes(value: dict[str, object]) -> None:
    """PyYAML quotes what YAML 1.1 would take for something else; y, n and 0o7 are go-yaml's alone."""
    text = yaml.safe_dump(value, allow_unicode=True)
    try:
        found = from_yaml(text)
    except DocumentError:
        assert any(ord(char) > 0xFFFF or not char.isprintable() for char in text.replace("\n", ""))
        return
    if not _has_go_only_scalars(value):
        assert found == value


def _has_go_only_scalars(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_go_only_scalars, [*value, *value.values()]))
    if isinstance(value, list):
        return any(map(_has_go_only_scalars, value))
    return isinstance(value, str) and (
        value in ("y", "Y", "n", "N") or (value[:1] in "+-.0123456789" and value != "") or not value.isprintable()
    )


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    _read_or_refused(text)


@given(st.text("ab:-{}[]&*!#'\"|>%@, \t\n0\\?~<"))
def test_any_yaml_like_text_is_read_or_refused(text: str) -> None:
    _read_or_refused(text)


def _read_or_refused(text: str) -> None:
    try:
        document = read_document("f", text, Budget())
    except DocumentError:
        return
    for node in _all(document.written):
        if node.span is not None:
            assert 0 <= node.span[0] <= node.span[1] <= len(text)
            assert node.source.line == text.count("\n", 0, node.span[0]) + 1


def _all(node: Node) -> list[Node]:
    return [node, *(found for child in (*node.items, *(value for _, value in node.members)) for found in _all(child))]


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5000,
        '{"a":' * 5000,
        "a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '{"a": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
        "- " * (MAX_DEPTH + 1) + "a",
        "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
    ],
)
def test_what_a_kubelet_refuses_for_its_size_is_refused(text: str) -> None:
    with pytest.raises(DocumentError) as refused:
        read_document("f", text, Budget())
    assert not isinstance(refused.value, LimitError)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1),
        '{"a": ' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}",
        "".join(" " * depth + "a:\n" for depth in range(300)),
        "a0: &a0 1\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60)),
    ],
)
def test_nesting_is_taken_as_deep_as_a_kubelet_takes_it(text: str) -> None:
    document = read_document("f", text, Budget())
    assert len(document.read.members) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "x: " + "x" * Budget.TEXT,
        '{"x": [' + "0," * Budget.VALUES + "0]}",
        "x: [" + "a," * Budget.VALUES + "a]",
        "a: &a [" + "x," * 1000 + "x]\nb: [" + "*a," * 60 + "x]\nc: [" + "x," * 2000 + "x]\n",
    ],
)
def test_a_limit_of_ours_is_said_to_be_ours(text: str) -> None:
    with pytest.raises(LimitError, match="which is a limit of ours"):
        read_document("f", text, Budget())


def test_the_budget_is_one_for_all_documents() -> None:
    budget = Budget()
    text = "x: [" + "a," * (Budget.VALUES // 3) + "a]"
    read_document("f", text, budget)
    read_document("g", text, budget)
    with pytest.raises(LimitError):
        read_document("h", text, budget)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"a": "x\xffy"}', "x\ufffdy"),
        (b'{"a": "\xe9"}', "\ufffd"),
        (b'{"a": "\xf0\x9f\x98"}', "\ufffd" * 3),
        (b'{"a": "\xed\xa0\x80"}', "\ufffd" * 3),
        (b'{"a": "\\ud800\x80"}', "\ufffd" * 2),
        ('{"a": "é"}'.encode(), "é"),
    ],
)
def test_bytes_that_are_not_utf8_in_json_are_replaced_one_by_one(raw: bytes, expected: str) -> None:
    assert plain(json_node(raw.decode("utf-8", "surrogateescape"))) == {"a": expected}


@pytest.mark.parametrize("raw", [b"a: \xff\n", b"# caf\xe9\na: b\n", b"a: '\xc3'\n"])
def test_bytes_that_are_not_utf8_in_yaml_are_refused_also_in_a_comment(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        yaml_node(raw.decode("utf-8", "surrogateescape"))


def test_only_yaml_1_1_is_taken() -> None:
    assert from_yaml("%YAML 1.1\n---\na: 1\n") == {"a": 1}
    with pytest.raises(DocumentError, match="incompatible YAML document"):
        yaml_node("%YAML 1.2\n---\na: 1\n")


@pytest.mark.parametrize(
    "text", ["a: .inf\n", "a: [.nan]\n", "~: 1\n", "a: {~: 1}\n", "a: &x .inf\nb: *x\n", "a: {<<: {~: 1}}\n"]
)
def test_what_yaml_has_and_json_has_not_is_refused_unless_a_later_key_replaces_it(text: str) -> None:
    with pytest.raises(DocumentError):
        yaml_node(text)
    if text.startswith("a: ") and "b:" not in text:
        assert parse_yaml("f", text + "a: 1\n", Budget())[1].members[0][1].text == "1"


def test_an_alias_is_read_where_it_stands() -> None:
    text = "a: &x !!bool yes\nb: *x\nc: &y\n  d: 1\n"
    root = yaml_node(text)
    a, b, c = (value for _, value in root.members)
    assert [text[slice(*node.span)] for node in (a, b) if node.span] == ["!!bool yes", "*x"]
    assert (a.source.line, b.source.line) == (1, 2)
    assert c.span is not None
    assert text[c.span[0] :].startswith("d: 1")


def test_floats_keep_their_value() -> None:
    root = yaml_node("a: 0.1\nb: 1e21\n")
    assert [value.text for _, value in root.members] == ["0.1", "1e+21"]
    assert math.isclose(float(root.members[0][1].text), 0.1)

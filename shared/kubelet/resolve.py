"""What a real kubelet would do with this command line and these files.

Source of the order of steps: `cmd/kubelet/app/server.go` (NewKubeletCommand, mergeKubeletConfigurations,
kubeletConfigFlagPrecedence, InitializeTLS). The measured kubelet (1.36) reports what is wrong with a config file
before an unknown feature gate of a flag; the outcome is a refusal either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Final, cast

from shared.kubelet.decode import Origins, Path, Struct, decode_alone, decode_struct, fold, forget
from shared.kubelet.defaults import (
    apply_defaults,
    apply_eviction_defaults,
    apply_legacy_defaults,
    get,
    new_configuration,
    put,
)
from shared.kubelet.document import (
    Document,
    canonical_numbers,
    check_config_kind,
    check_dropin_kind,
    read_document,
)
from shared.kubelet.flags import flag_set
from shared.kubelet.flagvalues import combine
from shared.kubelet.gates import FeatureGates
from shared.kubelet.gotypes import GoError, format_duration, parse_int, quote
from shared.kubelet.labels import check_node_labels
from shared.kubelet.merge import encode, merge
from shared.kubelet.pflag import CommandLine, GivenFlag, parse_flags
from shared.kubelet.schema import KUBELET_CONFIGURATION, GoType, split_path
from shared.kubelet.source import DEFAULT, Assignment, Source
from shared.kubelet.tree import DocumentError, Node
from shared.kubelet.validate import (
    clean_path,
    join_problems,
    validate_configuration,
    validate_logging,
    validate_tls,
)
from shared.kubelet.versions import minor_version

_CERT_DIR: Final = "/var/lib/kubelet/pki"
# The settings that loading a config file makes absolute (KubeletConfigurationPathRefs).
_PATH_SETTINGS: Final[tuple[Path, ...]] = (
    ("staticPodPath",),
    ("authentication", "x509", "clientCAFile"),
    ("tlsCertFile",),
    ("tlsPrivateKeyFile",),
    ("resolvConf",),
    ("volumePluginDir",),
    ("podLogsDir",),
)


@dataclass(frozen=True, slots=True)
class ConfigPaths:
    """--config and --config-dir as the command line has them; None where not given, or empty."""

    config: str | None
    config_dir: str | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the kubelet makes of it. `error` says why it refuses to start, None where it does not.

    `files_read` are the config file and the drop-ins, in the order they are read. `modelled` is False where this
    version has no data and the nearest minor's rules were taken. `limit` is not empty where a document is beyond a limit
    of ours: then `accepted` is False, and `error` says that the limit is ours, not the kubelet's.
    """

    accepted: bool
    error: str | None
    files_read: tuple[str, ...]
    modelled: bool
    limit: str
    _config: Struct = field(repr=False)
    _origins: Origins = field(repr=False)
    _documents: tuple[tuple[Document, bool], ...] = field(repr=False)
    _flags: tuple[GivenFlag, ...] = field(repr=False)

    def value(self, path: str) -> object:
        """The effective value: bool, int, float, str (a duration as Go prints it), list, dict, or None.

        None is a nil list, map or pointer, or a map key ("featureGates.X") that is not set. Raises KeyError for a
        path that KubeletConfiguration does not have, ValueError where the kubelet refuses to start.
        """
        parts, kind = self._path(path)
        return printed(get(self._config, parts), kind)

    def source(self, path: str) -> Source:
        """Where the effective value comes from. Raises as `value`."""
        parts, _ = self._path(path)
        return self._origins.get(parts, DEFAULT)

    def assignments(self, path: str) -> tuple[Assignment, ...]:
        """Every place that writes this setting, lowest precedence first: config file, drop-ins, flags.

        Also those that have no effect, and those that the kubelet could not take: where it refuses to start, as far
        as files and flags could be read. A file's value that is not of the setting's type is given as it is, a null
        as None. Raises KeyError for a path that KubeletConfiguration does not have.
        """
        parts, kind = split_path(path)
        found: list[Assignment] = []
        for document, dropin in self._documents:
            for node in _written(document.written, parts, KUBELET_CONFIGURATION, any_case=dropin):
                found.append(Assignment(node.source, _file_value(node, kind), node.span))
        for given in self._flags:
            found.extend(_flag_assignment(given, path, parts, kind))
        return tuple(found)

    def _path(self, path: str) -> tuple[Path, GoType]:
        found = split_path(path)
        if not self.accepted:
            raise ValueError(f"no effective value of {path}: the kubelet refuses to start ({self.error})")
        return found


def config_paths(argv: Sequence[str]) -> ConfigPaths:
    """The config file and drop-in directory a command line names, also where the kubelet would refuse the rest.

    `argv` is the process's argument vector, the kubelet first. The last of a repeated flag counts.
    """
    line = parse_flags(_checked_argv(argv), flag_set(None), tolerant=True)
    last = {given.flag.name: cast(str, given.value) for given in line.given if given.flag.kind == "string"}
    return ConfigPaths(last.get("config") or None, last.get("config-dir") or None)


def resolve(
    argv: Sequence[str],
    files: Mapping[str, str],
    *,
    version: str | None = None,
    cwd: str = "/",
    exists: Callable[[str], bool] = lambda path: True,
    listing: Callable[[str], Sequence[str]] | None = None,
) -> Resolution:
    """The kubelet's configuration for this argument vector (kubelet first) and these files (path to text).

    `version` is the kubelet's Kubernetes version ("1.33.2"); None stands for the measured 1.36. `cwd` is the process's
    working directory, from which relative paths start. `exists` says whether the node has a file of this absolute path
    (asked for the client CA file). `listing` gives the `.conf` paths of a config directory (absolute path, a trailing
    slash kept) in the order of the kubelet's walk; without it they are those of `files`, sorted as the walk sorts them,
    and a directory that has no file in `files` counts as empty. Raises TypeError for arguments of a wrong type, and
    nothing else: what a kubelet would not take is a Resolution with an error.
    """
    if not isinstance(files, Mapping) or not all(isinstance(item, str) for pair in files.items() for item in pair):
        raise TypeError("files must map each path (str) to its text (str)")
    if version is not None and not isinstance(version, str):
        raise TypeError(f"version must be a str or None, not {type(version).__name__}")
    start = _Start(_checked_argv(argv), files, minor_version(version), cwd, exists, listing)
    error: str | None = None
    try:
        start.run()
    except (GoError, DocumentError) as refusal:
        error = str(refusal)
    return Resolution(
        accepted=error is None,
        error=error,
        files_read=tuple(start.files_read()),
        modelled=True,
        limit="",
        _config=start.config,
        _origins=start.origins,
        _documents=tuple(start.documents()),
        _flags=start.applied,
    )


def _checked_argv(argv: Sequence[str]) -> Sequence[str]:
    if isinstance(argv, str) or not isinstance(argv, Sequence) or not all(isinstance(a, str) for a in argv):
        raise TypeError("argv must be a sequence of str, the kubelet first")
    return argv


class _Start:
    """One start of a kubelet, step by step; what is known when a step refuses stays here."""

    def __init__(
        self,
        argv: Sequence[str],
        files: Mapping[str, str],
        minor: int,
        cwd: str,
        exists: Callable[[str], bool],
        listing: Callable[[str], Sequence[str]] | None,
    ) -> None:
        self.cwd = cwd
        self.exists = exists
        self.listing = listing
        self.argv = argv
        self.minor = minor
        self.known = flag_set(minor)
        self.config = new_configuration()
        self.origins: Origins = {}
        self.applied: tuple[GivenFlag, ...] = ()
        self.paths = config_paths(argv)
        self.texts = {self.absolute(path): (path, text) for path, text in files.items()}
        self.read: dict[str, Document | DocumentError] = {}
        self.flag_gates: dict[str, bool] = {}

    def run(self) -> None:
        """Raises GoError or DocumentError where the kubelet refuses to start."""
        line = parse_flags(self.argv, self.known)
        self.applied = line.given
        _check_command(line)
        apply_defaults(self.config, self.origins, minor=self.minor)
        apply_legacy_defaults(self.config)
        self.apply_flags()
        self.flag_gates = dict(cast("dict[str, bool]", self.config["featureGates"] or {}))
        with _refusing("failed to validate kubelet flags"):
            check_node_labels(_combined(line.given, "node-labels"))
        if self.paths.config is not None:
            self.load_config(self.paths.config)
        if self.paths.config_dir is not None:
            with _refusing("failed to merge kubelet configs"):
                self.merge_dropins(self.paths.config_dir)
        if self.paths != ConfigPaths(None, None):
            self.apply_flags_again()
        with _refusing("failed to set feature gates from initial flags-based config"):
            own = cast("dict[str, bool] | None", self.config["featureGates"])
            gates = FeatureGates(self.minor, {**self.flag_gates, **(own or {})})
        _refuse_for("initialize logging", validate_logging(self.config, gates))
        _refuse_for(
            "failed to validate kubelet configuration, error",
            validate_configuration(self.config, gates, minor=self.minor),
        )
        self.initialize_tls()

    def apply_flags(self) -> None:
        """Puts what the flags say over the configuration; of a repeated flag, what pflag makes of all of them."""
        values: dict[str, object] = {}
        places: Origins = {}
        for given in self.applied:
            flag = given.flag
            if flag.scope != "config" or given.value is None:
                continue
            values[flag.path] = combine(flag.kind, values.get(flag.path), given.value)
            parts = _parts(flag.path)
            places[parts] = given.source
            if isinstance(given.value, dict):
                places.update({(*parts, name): given.source for name in given.value})
        for path, value in values.items():
            parts = _parts(path)
            forget(self.origins, parts, get(self.config, parts))
            put(self.config, parts, value)
        self.origins.update(places)

    def apply_flags_again(self) -> None:
        """kubeletConfigFlagPrecedence: the flags over the config; gates that no flag names stay."""
        line = parse_flags(self.argv, self.known, again=True)
        if line.error is not None:
            raise GoError(f"failed to precedence kubeletConfigFlag: {line.error}")
        self.applied = line.given
        gates = dict(cast("dict[str, bool]", self.config["featureGates"] or {}))
        places = {name: self.origins.get(("featureGates", name), DEFAULT) for name in gates}
        self.apply_flags()
        after = cast("dict[str, bool] | None", self.config["featureGates"])
        for name, value in gates.items():
            if after is not None and name not in after:
                after[name] = value
                self.origins["featureGates", name] = places[name]

    def load_config(self, path: str) -> None:
        prefix = f"failed to load kubelet config file, path: {path}, error"
        with _refusing(f"{prefix}: failed to load Kubelet config file {path}, error", separator=" "):
            text = self.text(path)
            with _refusing("failed to decode"):
                document = self.document(path, text)
                check_config_kind(document, text)
                self.config, self.origins = new_configuration(), {}
                self.decode(document.read, any_case=False)
            apply_eviction_defaults(self.config, self.origins)
            directory = self.absolute(path).rpartition("/")[0]
            for parts in _PATH_SETTINGS:
                value = cast("str | None", get(self.config, parts))
                if value and not value.startswith("/"):
                    put(self.config, parts, clean_path(f"{directory}/{value}"))

    def merge_dropins(self, directory: str) -> None:
        merged = encode(self.config, KUBELET_CONFIGURATION, self.origins, minor=self.minor)
        walk = f"failed to walk through kubelet dropin directory {quote(directory)}"
        for path in self.dropins(directory):
            with _refusing(f"{walk}: failed to load kubelet dropin file, path: {path}, error"):
                text = self.text(path)
                document = self.document(path, text)
                check_dropin_kind(document, text)
                merged = merge(merged, canonical_numbers(document.read))
        self.config, self.origins = new_configuration(), {}
        with _refusing("failed to unmarshal merged JSON into kubelet configuration"):
            self.decode(merged, any_case=True)

    def decode(self, root: Node, *, any_case: bool) -> None:
        """Decodes onto the (new) configuration, then fills in the defaults."""
        decode_struct(root, KUBELET_CONFIGURATION, self.config, self.origins, minor=self.minor, any_case=any_case)
        apply_defaults(self.config, self.origins, minor=self.minor, flag_gates=self.flag_gates)

    def initialize_tls(self) -> None:
        config = self.config
        if not (config["serverTLSBootstrap"] or config["tlsCertFile"] or config["tlsPrivateKeyFile"]):
            # the kubelet makes a certificate of its own there
            named = [given.value for given in self.applied if given.flag.name == "cert-dir"]
            directory = cast(str, named[-1]) if named else _CERT_DIR
            config["tlsCertFile"] = clean_path(f"{directory}/kubelet.crt")
            config["tlsPrivateKeyFile"] = clean_path(f"{directory}/kubelet.key")
        problem = validate_tls(config)
        if problem is not None:
            raise GoError(f"failed to construct kubelet dependencies: {problem}")

    def text(self, path: str) -> str:
        """A file's text. Raises GoError where there is none, or nothing in it."""
        found = self.texts.get(self.absolute(path))
        if found is None:
            raise GoError(
                f"failed to read kubelet config file {quote(self.absolute(path))}, "
                f"error: open {self.absolute(path)}: no such file or directory"
            )
        if not found[1]:
            raise GoError(f"kubelet config file {quote(self.absolute(path))} was empty")
        return found[1]

    def document(self, path: str, text: str) -> Document:
        """The file, read once. Raises DocumentError."""
        if path not in self.read:
            try:
                self.read[path] = read_document(path, text)
            except DocumentError as error:
                self.read[path] = error
        found = self.read[path]
        if isinstance(found, DocumentError):
            raise found
        return found

    def absolute(self, path: str) -> str:
        return clean_path(path if path.startswith("/") else f"{self.cwd}/{path}")

    def dropins(self, directory: str) -> Sequence[str]:
        """The drop-ins in filepath.WalkDir's order: by name within each directory, sub-directories in their place."""
        if self.listing is not None:
            return self.listing(directory if directory.startswith("/") else f"{self.cwd.rstrip('/')}/{directory}")
        root = self.absolute(directory).rstrip("/")
        found: list[tuple[list[bytes], str]] = []
        for path, (given, _) in self.texts.items():
            if path.endswith(".conf") and (path == root or path.startswith(f"{root}/")):
                found.append(([part.encode("utf-8", "surrogatepass") for part in path.split("/")], given))
        return [given for _, given in sorted(found)]

    def files_read(self) -> list[str]:
        config = [] if self.paths.config is None else [self.paths.config]
        return [*config, *([] if self.paths.config_dir is None else self.dropins(self.paths.config_dir))]

    def documents(self) -> Iterator[tuple[Document, bool]]:
        """Each file that can be read, and whether it is a drop-in: also those after the one that is refused."""
        for path in self.files_read():
            found = self.texts.get(self.absolute(path))
            if found is None or not found[1]:
                continue
            with suppress(DocumentError):
                yield self.document(path, found[1]), path != self.paths.config


def _check_command(line: CommandLine) -> None:
    if line.error is not None:
        raise GoError(f"failed to parse kubelet flag: {line.error}")
    if line.arguments:
        raise GoError(f"unknown command {line.arguments[0]}")
    last = {given.flag.name: given.value for given in line.given if given.flag.name in ("help", "version")}
    for name, wanted in last.items():
        if wanted:
            raise GoError(f"--{name}: the kubelet prints it and exits")


def _combined(flags: tuple[GivenFlag, ...], name: str) -> dict[str, str]:
    """What all occurrences of a map flag make together."""
    made: dict[str, str] = {}
    for given in flags:
        if given.flag.name == name:
            made.update(cast("dict[str, str]", given.value))
    return made


@contextmanager
def _refusing(step: str, separator: str = ": ") -> Iterator[None]:
    """Names the step in what it refuses, as the kubelet wraps its errors."""
    try:
        yield
    except (GoError, DocumentError) as refusal:
        raise GoError(f"{step}{separator}{refusal}") from refusal


def _refuse_for(step: str, problems: list[str]) -> None:
    if problems:
        raise GoError(f"{step}: {join_problems(problems)}")


@cache
def _parts(path: str) -> Path:
    """The parts of a flag's path, none of which is a map's key."""
    return tuple(path.split("."))


def printed(value: object, kind: GoType) -> object:
    """A value in the kubelet's own forms: durations as Go prints them."""
    if value is None:
        return None
    if kind.kind == "pointer":
        return printed(value, kind.inner)
    if kind.kind in ("duration", "log_duration"):
        return format_duration(cast(int, value))
    if kind.kind == "slice":
        return [printed(item, kind.inner) for item in cast("list[object]", value)]
    if kind.kind == "map":
        return {name: printed(item, kind.inner) for name, item in cast(Struct, value).items()}
    if kind.kind == "struct":
        struct = cast(Struct, value)
        return {field.json: printed(struct[field.json], field.type) for field in kind.fields if field.json in struct}
    return value


def _written(node: Node, parts: Path, kind: GoType, *, any_case: bool) -> Iterator[Node]:
    """The values a file writes at a path, in the order in which the kubelet lets them count."""
    while kind.kind == "pointer":
        kind = kind.inner
    if not parts:
        yield node
        return
    name, *below = parts
    if kind.kind == "map":
        matches = [member for member in node.members if member[0] == name]
        inner = kind.inner
    else:
        names = {field.json: field.type for field in kind.fields}
        inner = names[name]
        matches = [
            (key, value)
            for key, value in node.members
            if key == name or (any_case and key not in names and fold(key) == fold(name))
        ]
        if any_case:  # the merge sorts what is spelled differently
            matches.sort(key=lambda member: member[0])
    for _, value in matches:
        yield from _written(value, tuple(below), inner, any_case=any_case)


def _file_value(node: Node, kind: GoType) -> object:
    """What a file's value means for a setting of this type; as it stands there where it does not fit."""
    if node.kind == "null":
        return None
    try:
        return printed(decode_alone(node, kind), kind)
    except GoError:
        return _plain(node)


def _plain(node: Node) -> object:
    if node.kind == "array":
        return [_plain(item) for item in node.items]
    if node.kind == "object":
        return {name: _plain(value) for name, value in node.members}
    if node.kind == "number":
        try:
            return parse_int(node.text, 64, base=10)
        except GoError:
            return float(node.text)
    if node.kind == "bool":
        return node.truth
    return None if node.kind == "null" else node.text


def _flag_assignment(given: GivenFlag, path: str, parts: Path, kind: GoType) -> Iterator[Assignment]:
    if given.flag.scope != "config" or given.value is None:
        return
    if given.flag.path == path:
        yield Assignment(given.source, printed(given.value, kind))
    elif isinstance(given.value, dict) and _parts(given.flag.path) == parts[:-1] and parts[-1] in given.value:
        yield Assignment(given.source, printed(given.value[parts[-1]], kind))

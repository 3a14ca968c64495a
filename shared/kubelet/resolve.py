"""What a real kubelet would do with this command line and these files.

Source of the order of steps: `cmd/kubelet/app/server.go` (NewKubeletCommand, mergeKubeletConfigurations,
kubeletConfigFlagPrecedence, InitializeTLS, run) and `auth.go`. What only the node can tell (its cgroups, its devices, a
container runtime that does not answer) is not asked here.
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
    put,
)
from shared.kubelet.document import (
    Document,
    canonical_numbers,
    check_config_kind,
    check_dropin_kind,
    read_document,
)
from shared.kubelet.flagvalues import combined, parse_value
from shared.kubelet.gates import FeatureGates
from shared.kubelet.gotypes import GoError, format_duration, parse_int, quote
from shared.kubelet.labels import check_node_labels
from shared.kubelet.merge import encode, merge
from shared.kubelet.minors import Minor, every_flag, minor_rules
from shared.kubelet.pflag import CommandLine, GivenFlag, parse_flags
from shared.kubelet.schema import GoType, split_path, zero
from shared.kubelet.source import DEFAULT, Assignment, Source
from shared.kubelet.tree import Budget, DocumentError, LimitError, Node
from shared.kubelet.validate import (
    clean_path,
    join_problems,
    validate_configuration,
    validate_logging,
    validate_tls,
)
from shared.kubelet.versions import nearest_minor

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


# Until 1.35 the client CA file is read with the TLS settings, later with the authentication.
_LAST_CA_WITH_TLS: Final = 35
# Until 1.33 another cloud provider than "external" stops the kubelet; later the flag has no effect.
_LAST_CLOUD_PROVIDER: Final = 33
_LONGEST_ERROR: Final = 4000
_AUTHORIZATION_MODES: Final = ("AlwaysAllow", "Webhook")

GATES: Final = "featureGates."
"""How the path of a feature gate begins."""


@dataclass(frozen=True, slots=True)
class ConfigPaths:
    """--config and --config-dir as the command line has them; None where not given, or empty."""

    config: str | None
    config_dir: str | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the kubelet makes of it. `error` says why it refuses to start, None where it does not.

    `files_read` are the config file and the drop-ins, in the order they are read. `modelled` is False where this
    version has no data and the nearest minor's rules were taken. `limit` is not empty where something is beyond a
    limit of ours: then `accepted` is False, and `error` says that the limit is ours, not the kubelet's.
    """

    accepted: bool
    error: str | None
    files_read: tuple[str, ...]
    modelled: bool
    limit: str
    values_read: int
    """How many values the files hold, those behind an alias each time they count."""
    _rules: Minor = field(repr=False)
    _config: Struct = field(repr=False)
    _origins: Origins = field(repr=False)
    _documents: tuple[tuple[Document, bool], ...] = field(repr=False)
    _flags: tuple[GivenFlag, ...] = field(repr=False)
    _gates: FeatureGates = field(repr=False, compare=False)
    _assignments: dict[str, tuple[Assignment, ...]] = field(default_factory=dict, repr=False, compare=False)
    _effective: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    def value(self, path: str) -> object:
        """The effective value: bool, int, float, str (a duration as Go prints it), list, dict, or None.

        None is a nil list, map or pointer, or a map key ("featureGates.X") that is not set. Raises KeyError for a
        path that KubeletConfiguration does not have, ValueError where the kubelet refuses to start.
        """
        parts, kind = self._path(path)
        return printed(get(self._config, parts), kind)

    def effective(self, path: str) -> object:
        """As `value`, but of a feature gate ("featureGates.X") whether it is on, by whatever decides that.

        None where the version does not know the gate.
        """
        if path not in self._effective:
            value = self.value(path)
            self._effective[path] = self._gates.state(path.removeprefix(GATES)) if path.startswith(GATES) else value
        return self._effective[path]

    def decided_by(self, path: str) -> Source:
        """As `source`, but of a feature gate that its group (AllBeta) switches, where that is set."""
        found = self.source(path)
        if found != DEFAULT or not path.startswith(GATES):
            return found
        group = self._gates.group(path.removeprefix(GATES))
        return self._origins.get(("featureGates", group), DEFAULT) if group else found

    def settings(self) -> tuple[str, ...]:
        """The paths of all settings that this version has; a list, a map and what may be absent is one."""
        return tuple(_settings("", self._rules.configuration))

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
        known = self._assignments.get(path)
        if known is None:
            known = self._assignments[path] = self._assigned(path)
        return known

    def _assigned(self, path: str) -> tuple[Assignment, ...]:
        root = self._rules.configuration
        parts, kind = split_path(path, root)
        found: list[Assignment] = []
        for document, dropin in self._documents:
            for node in _written(document.written, parts, root, any_case=dropin):
                found.append(Assignment(node.source, _file_value(node, kind), node.span))
        for given in self._flags:
            found.extend(_flag_assignment(given, path, parts, kind))
        return tuple(found)

    def _path(self, path: str) -> tuple[Path, GoType]:
        found = split_path(path, self._rules.configuration)
        if not self.accepted:
            raise ValueError(f"no effective value of {path}: the kubelet refuses to start ({self.error})")
        return found


def config_paths(argv: Sequence[str]) -> ConfigPaths:
    """The config file and drop-in directory a command line names, also where the kubelet would refuse the rest.

    `argv` is the process's argument vector, the kubelet first. The last of a repeated flag counts.
    """
    line = parse_flags(_checked_argv(argv), every_flag(), tolerant=True)
    last = {given.flag.name: cast(str, given.value) for given in line.given if given.flag.kind == "string"}
    return ConfigPaths(last.get("config") or None, last.get("config-dir") or None)


def named_by(argv: Sequence[str], flag: str) -> str:
    """The value that a command line gives a flag of text (with its dashes); the last counts, '' where none does."""
    line = parse_flags(_checked_argv(argv), every_flag(), tolerant=True)
    name = flag.removeprefix("--")
    return "".join([cast(str, given.value) for given in line.given if given.flag.name == name][-1:])


@cache
def has_setting(path: str, version: str | None) -> bool:
    """Whether the kubelet of a version has this setting, or feature gate; where there is no data of it, the nearest."""
    rules = minor_rules(nearest_minor(version)[0])
    if path.startswith(GATES):
        return path.removeprefix(GATES) in rules.gates
    try:
        split_path(path, rules.configuration)
    except KeyError:
        return False
    return True


def resolve(
    argv: Sequence[str],
    files: Mapping[str, str],
    *,
    version: str | None = None,
    cwd: str = "/",
    exists: Callable[[str], bool] = lambda _: True,
    listing: Callable[[str], Sequence[str]] | None = None,
) -> Resolution:
    """The kubelet's configuration for this argument vector (kubelet first) and these files (path to text).

    `version` is the kubelet's Kubernetes version ("1.33.2"); where it is None or says nothing, the rules are those of
    1.36. `cwd` is the process's working directory, from which relative paths start. `exists` says whether the node has
    a file of this absolute path, which is not normalised (asked for the client CA file). `listing` gives the `.conf`
    paths of a config directory (absolute, a trailing slash kept) in the order of the kubelet's walk, and raises
    FileNotFoundError where there is no such directory; without it they are those of `files`, sorted as the walk sorts
    them, and a directory that has no file in `files` counts as empty.

    Raises TypeError for arguments of a wrong type, and nothing else: what a kubelet would not take is a Resolution with
    an error.
    """
    if not isinstance(files, Mapping) or not all(isinstance(item, str) for pair in files.items() for item in pair):
        raise TypeError("files must map each path (str) to its text (str)")
    if version is not None and not isinstance(version, str):
        raise TypeError(f"version must be a str or None, not {type(version).__name__}")
    minor, modelled = nearest_minor(version)
    rules = minor_rules(minor)
    start = _Start(_checked_argv(argv), files, rules, cwd, exists, listing)
    error: str | None = None
    limit = ""
    try:
        start.run()
    except LimitError as beyond:
        error = limit = str(beyond)
    except (GoError, DocumentError) as refusal:
        error = _bounded(str(refusal))
    return Resolution(
        accepted=error is None,
        error=error,
        files_read=tuple(start.files_read()),
        modelled=modelled,
        limit=limit,
        values_read=start.budget.counted,
        _rules=rules,
        _config=start.config,
        _origins=start.origins,
        _documents=tuple(start.documents()),
        _flags=start.applied,
        _gates=start.gates,
    )


def _bounded(error: str) -> str:
    """An error quotes what was given, which may be of any length and need not be UTF-8."""
    text = error.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…"


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
        rules: Minor,
        cwd: str,
        exists: Callable[[str], bool],
        listing: Callable[[str], Sequence[str]] | None,
    ) -> None:
        self.cwd = cwd
        self.exists = exists
        self.listing = listing
        self.argv = argv
        self.rules = rules
        self.config = self.new_configuration()
        self.origins: Origins = {}
        self.applied: tuple[GivenFlag, ...] = ()
        self.paths = config_paths(argv)
        self.texts = {self.absolute(path): (path, text) for path, text in files.items()}
        self.budget = Budget()
        self.read: dict[str, Document | DocumentError] = {}
        self.gates = FeatureGates(rules.gates, rules.dependencies)

    def run(self) -> None:
        """Raises GoError or DocumentError where the kubelet refuses to start."""
        self.budget.arguments(self.argv)
        line = parse_flags(self.argv, self.rules.flags)
        self.applied = line.given
        _check_command(line)
        apply_defaults(self.config, self.origins, self.rules, self.gates)
        apply_legacy_defaults(self.config, self.rules)
        self.apply_flags()
        self.set_gates()
        with _refusing("failed to validate kubelet flags"):
            labels = combined("labels", [given.value for given in line.given if given.flag.name == "node-labels"])
            check_node_labels(cast("dict[str, str]", labels), self.rules.labels, self.rules.label_namespaces)
        if self.paths.config is not None:
            self.load_config(self.paths.config)
        if self.paths.config_dir is not None:
            with _refusing("failed to merge kubelet configs"):
                self.merge_dropins(self.paths.config_dir)
        if self.paths != ConfigPaths(None, None):
            self.apply_flags_again()
            self.set_gates()
        _refuse_for("initialize logging", validate_logging(self.config, self.gates, self.rules))
        _refuse_for(
            "failed to validate kubelet configuration, error",
            validate_configuration(self.config, self.gates, self.rules),
        )
        with _refusing("failed to construct kubelet dependencies"):
            self.initialize_tls()
        with _refusing("failed to run Kubelet"):
            self.check_run()

    def new_configuration(self) -> Struct:
        return cast(Struct, zero(self.rules.configuration))

    def set_gates(self) -> None:
        with _refusing("failed to set feature gates from initial flags-based config"):
            self.gates = self.gates.set(cast("dict[str, bool] | None", self.config["featureGates"]) or {})

    def apply_flags(self) -> None:
        """Puts what the flags say over the configuration; of a repeated flag, what pflag makes of all of them."""
        given_by_path: dict[str, list[GivenFlag]] = {}
        for given in self.applied:
            if given.flag.scope == "config":
                given_by_path.setdefault(given.flag.path, []).append(given)
        for path, occurrences in given_by_path.items():
            kind = occurrences[0].flag.kind
            parts = _parts(path)
            values = [given.value for given in occurrences]
            if kind == "vmodule":  # the one flag that adds to what the configuration has
                values = [get(self.config, parts) or [], *values]
            value = combined(kind, values)
            if value is None:
                continue
            forget(self.origins, parts, get(self.config, parts))
            put(self.config, parts, value)
            for given in occurrences:
                if given.value is not None:
                    self.origins[parts] = given.source
                if isinstance(given.value, dict):
                    self.origins.update({(*parts, name): given.source for name in given.value})

    def apply_flags_again(self) -> None:
        """kubeletConfigFlagPrecedence: the flags over the config; gates that no flag names stay."""
        line = parse_flags(self.argv, self.rules.flags, again=True)
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
                check_config_kind(document, text, self.rules)
                self.config, self.origins = self.new_configuration(), {}
                self.decode(document.read, any_case=False)
            apply_eviction_defaults(self.config, self.origins, self.rules)
            directory = self.absolute(path).rpartition("/")[0]
            for parts in _PATH_SETTINGS:
                value = cast("str | None", get(self.config, parts))
                if value and not value.startswith("/"):
                    put(self.config, parts, clean_path(f"{directory}/{value}"))

    def merge_dropins(self, directory: str) -> None:
        # Until 1.31 drop-ins are merged onto the internal type, under its own names, and nothing is defaulted.
        internal = self.rules.internal
        merged = encode(self.config, internal or self.rules.configuration, self.origins)
        walk = f"failed to walk through kubelet dropin directory {quote(directory)}"
        for path in self.dropins(directory):
            with _refusing(f"{walk}: failed to load kubelet dropin file, path: {path}, error"):
                text = self.text(path)
                document = self.document(path, text)
                check_dropin_kind(document, text, self.rules)
                merged = merge(merged, canonical_numbers(document.read))
        with _refusing("failed to unmarshal merged JSON into kubelet configuration"):
            if internal is not None:
                decode_struct(merged, internal, self.config, self.origins, any_case=True)
                return
            self.config, self.origins = self.new_configuration(), {}
            self.decode(merged, any_case=True)

    def decode(self, root: Node, *, any_case: bool) -> None:
        """Decodes onto the (new) configuration, then fills in the defaults."""
        decode_struct(root, self.rules.configuration, self.config, self.origins, any_case=any_case)
        apply_defaults(self.config, self.origins, self.rules, self.gates)

    def initialize_tls(self) -> None:
        config = self.config
        if not (config["serverTLSBootstrap"] or config["tlsCertFile"] or config["tlsPrivateKeyFile"]):
            # the kubelet makes a certificate of its own there
            directory = cast(str, self.flag("cert-dir"))
            config["tlsCertFile"] = clean_path(f"{directory}/kubelet.crt")
            config["tlsPrivateKeyFile"] = clean_path(f"{directory}/kubelet.key")
        problem = validate_tls(config, self.rules)
        if problem is not None:
            raise GoError(problem)
        authority = self.client_ca_file()
        if self.rules.number <= _LAST_CA_WITH_TLS and authority and not self.exists(self.named(authority)):
            raise GoError(f"unable to load client CA file {authority}: open {authority}: no such file or directory")

    def client_ca_file(self) -> str:
        return cast(str, get(self.config, ("authentication", "x509", "clientCAFile")))

    def check_run(self) -> None:
        """What stops a kubelet whose configuration was taken, as far as flags and files say. Raises GoError."""
        if self.flag("exit-on-lock-contention") and not self.flag("lock-file"):
            raise GoError("cannot exit on lock file contention: no lock file specified")
        provider = cast(str, self.flag("cloud-provider"))
        if self.rules.number <= _LAST_CLOUD_PROVIDER and provider not in ("", "external"):
            raise GoError(f"cloud provider {quote(provider)} is not known, or was removed")
        name = cast(str, self.flag("hostname-override"))
        if name and not name.strip():
            raise GoError("empty hostname is invalid")
        authority = self.client_ca_file()
        if authority and not self.exists(self.named(authority)):
            raise GoError(f"open {authority}: no such file or directory")
        if get(self.config, ("authentication", "webhook", "enabled")) and not self.flag("kubeconfig"):
            return  # it ends for want of an API server, before it gets to its authorization
        mode = get(self.config, ("authorization", "mode"))
        if not mode:
            raise GoError("no authorization mode specified")
        if mode not in _AUTHORIZATION_MODES:
            raise GoError(f"unknown authorization mode {mode}")

    def flag(self, name: str) -> object:
        """The value of a flag that only the command line has: the last one given, else its default."""
        given = [given.value for given in self.applied if given.flag.name == name]
        known = self.rules.flags.by_name[name]
        return given[-1] if given else parse_value(known.kind, known.default or ("false" if known.alone else ""))

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
                self.read[path] = read_document(path, text, self.budget)
            except DocumentError as error:
                self.read[path] = error
        found = self.read[path]
        if isinstance(found, DocumentError):
            raise found
        return found

    def named(self, path: str) -> str:
        """The path as the process names it to the kernel, from the root."""
        return path if path.startswith("/") else f"{self.cwd.rstrip('/')}/{path}"

    def absolute(self, path: str) -> str:
        """filepath.Abs, which the kubelet asks for its config files: `..` goes by the text, not by what is linked."""
        return clean_path(self.named(path))

    def dropins(self, directory: str) -> Sequence[str]:
        """The drop-ins in filepath.WalkDir's order: by name within each directory, sub-directories in their place."""
        if self.listing is not None:
            try:
                return self.listing(self.named(directory))
            except FileNotFoundError:
                raise GoError(
                    f"failed to walk through kubelet dropin directory {quote(directory)}: "
                    f"lstat {directory}: no such file or directory"
                ) from None
        root = self.absolute(directory).rstrip("/")
        found: list[tuple[list[bytes], str]] = []
        for path, (given, _) in self.texts.items():
            if path.endswith(".conf") and (path == root or path.startswith(f"{root}/")):
                found.append(([part.encode("utf-8", "surrogatepass") for part in path.split("/")], given))
        return [given for _, given in sorted(found)]

    def files_read(self) -> list[str]:
        config = [] if self.paths.config is None else [self.paths.config]
        if self.paths.config_dir is None:
            return config
        with suppress(GoError):
            config.extend(self.dropins(self.paths.config_dir))
        return config

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


@contextmanager
def _refusing(step: str, separator: str = ": ") -> Iterator[None]:
    """Names the step in what it refuses, as the kubelet wraps its errors."""
    try:
        yield
    except LimitError:
        raise
    except (GoError, DocumentError) as refusal:
        raise GoError(f"{step}{separator}{refusal}") from refusal


def _refuse_for(step: str, problems: list[str]) -> None:
    if problems:
        raise GoError(f"{step}: {join_problems(problems)}")


def _settings(prefix: str, kind: GoType) -> Iterator[str]:
    for name, member in kind.fields.items():
        if member.type.kind == "struct":
            yield from _settings(f"{prefix}{name}.", member.type)
        else:
            yield f"{prefix}{name}"


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
        return {name: printed(struct[name], field.type) for name, field in kind.fields.items()}
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
        names = kind.fields
        inner = names[name].type
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


def _plain(node: Node, levels: int = 16) -> object:
    """A value as it stands in the file, with "…" for what nests deeper."""
    if node.children and not levels:
        return "…"
    if node.kind == "array":
        return [_plain(item, levels - 1) for item in node.items]
    if node.kind == "object":
        return {name: _plain(value, levels - 1) for name, value in node.members}
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

"""What a real kubelet would do with a command line and its files, without running one."""

from shared.kubelet.edit import flag_text
from shared.kubelet.minors import SECRETS, kind_of, knows, names_file
from shared.kubelet.resolve import GATES, ConfigPaths, Resolution, config_paths, has_setting, named_by, resolve
from shared.kubelet.source import Assignment, Source
from shared.kubelet.told import NotTold, asked, told
from shared.kubelet.usual import Usual, usual
from shared.kubelet.versions import minor_of, modelled, modelled_minors

__all__ = [
    "GATES",
    "SECRETS",
    "Assignment",
    "ConfigPaths",
    "NotTold",
    "Resolution",
    "Source",
    "Usual",
    "asked",
    "config_paths",
    "flag_text",
    "has_setting",
    "kind_of",
    "knows",
    "minor_of",
    "modelled",
    "modelled_minors",
    "named_by",
    "names_file",
    "resolve",
    "told",
    "usual",
]

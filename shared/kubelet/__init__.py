"""What a real kubelet would do with a command line and its files, without running one."""

from shared.kubelet.resolve import ConfigPaths, Resolution, config_paths, resolve
from shared.kubelet.source import Assignment, Source

__all__ = ["Assignment", "ConfigPaths", "Resolution", "Source", "config_paths", "resolve"]

"""What systemd would start for a unit, by what rules, where each argument is written, and how to change that spot.

Pure: texts in, values out. The rules are those of systemd.syntax(7), systemd.unit(5), systemd.service(5)
("Command lines") and systemd.exec(5) ("Environment"), and of systemd's own parser where the manual is silent.
The tests compare them with a real systemd.
"""

from .budget import TooLarge
from .command import Argument, Part, StartCommand, start_command
from .edit import CannotEdit, append_argument, remove_argument, replace_argument
from .environment import Variable
from .rules import ServiceRules, service_rules
from .text import MissingEnvironmentFile, Origin, UnitError, UnknownToUs

__all__ = [
    "Argument",
    "CannotEdit",
    "MissingEnvironmentFile",
    "Origin",
    "Part",
    "ServiceRules",
    "StartCommand",
    "TooLarge",
    "UnitError",
    "UnknownToUs",
    "Variable",
    "append_argument",
    "remove_argument",
    "replace_argument",
    "service_rules",
    "start_command",
]

"""What a verdict can be, as one short word a kind: the codes of findings that come from judging a node."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """The code of a verdict, and in one line what it means."""

    meaning: str

    def __new__(cls, word: str, meaning: str) -> Code:
        """A code that is its word, and has its meaning besides."""
        code = str.__new__(cls, word)
        code._value_ = word
        code.meaning = meaning
        return code

    RIGHT = "right", "the running kubelet, or the file, is as the control asks for"
    WRONG = "wrong", "the running kubelet, or the file, is not as the control asks for"
    WRONG_AFTER_RESTART = "wrong_after_restart", "the running value is right, and a restart would make it wrong"
    RESTART_PENDING = "restart_pending", "the running value is wrong, and a restart would make it right"
    NEXT_START_REFUSED = "next_start_refused", "the kubelet runs, and could not be started again"
    UNPROVED = "unproved", "what the running kubelet read cannot be proved"
    WITNESSES_DISAGREE = (
        "witnesses_disagree",
        "the witnesses of one process say different things",
    )
    NEEDS_NODE = "needs_node", "only a look at the node itself can tell"
    NOT_ANSWERING = "not_answering", "the kubelet's process is there and does not answer"
    UNFINISHED_FIX = "unfinished_fix", "a fix was begun on the node and has not ended"
    VERSION_UNKNOWN = "version_unknown", "the rules of the kubelet's version are not known to this version"
    NOT_UNDERSTOOD = "not_understood", "the kubelet runs with what this version's rules refuse"
    CONFIG_REFUSED = "config_refused", "a file was changed after the start, and a kubelet refuses it now"
    CONFIG_UNREADABLE = "config_unreadable", "a file that the command line names is not there or cannot be read"
    FILE_MISSING = "file_missing", "the file that the control is about is not there"
    NO_SUCH_FILE = "no_such_file", "the kubelet is not told to use the file that the control is about"
    NOT_FOR_THIS_NODE = "not_for_this_node", "the control does not apply to nodes like this one"
    LISTING_UNKNOWN = "listing_unknown", "what a configuration directory holds is not known"
    TOO_LARGE = "too_large", "something is beyond a limit, which the reason says to be ours or the kernel's"
    MISSING_TOOL = "missing_tool", "the node lacks a command that the look at it needs"
    NOT_A_KUBELET = "not_a_kubelet", "the unit's main process is something else"
    KUBELET_NOT_RUNNING = "kubelet_not_running", "no kubelet process runs"
    NO_CONTROL = "no_control", "the catalogue was changed while the run was going, and has no such control any more"
    NO_KUBELET = "no_kubelet", "systemd knows no kubelet.service"

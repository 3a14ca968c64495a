"""Every exception that reaches a person, in one place. The text says what was wrong and what would be right."""

from __future__ import annotations


class GuardError(Exception):
    """Base of all errors raised on purpose; the terminal prints its text and exits with `exit_code`."""

    exit_code = 2


class UsageError(GuardError):
    """The request itself is wrong: an unknown name, a malformed id, a bad setting. Exit 64 (EX_USAGE)."""

    exit_code = 64


class SettingsError(UsageError):
    """A setting has a bad value. The text names the setting, the value and what is allowed."""


class NotFixedError(UsageError):
    """A fix of a control that this deployment does not fix (GUARD_FIX_CONTROLS)."""


class CredentialError(GuardError):
    """No credential, or none that Azure accepts."""


class EndpointError(GuardError):
    """Azure Resource Manager cannot be reached at the configured endpoint, or has no answer now."""


class BlobError(GuardError):
    """A blob cannot be read. `status` is what its storage account answered, None where it did not answer."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class OrchestrationsError(GuardError):
    """Durable Functions cannot be asked, or does not answer as it should."""


class StoreError(GuardError):
    """The store cannot be opened, read or written.

    `transient` says that the same call may well go through later: no connection, a busy or failing service.
    """

    def __init__(self, text: str, *, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient


class NotStorable(StoreError):
    """One value cannot be stored, whatever the state of the store."""

"""The catalogue of one's own (GUARD_CONTROLS_FILE): read when a process starts to judge, and judged by from then on."""

from __future__ import annotations

from pathlib import Path

from shared.controls import Catalogue, builtin, install, read
from shared.errors import BlobError, SettingsError
from shared.plain import plain
from shared.runs.model.names import there_is
from shared.settings import TABLE, Settings

# Far more than `read` takes, in characters: only so that nothing endless is read.
_MOST_BYTES = 1_048_576


async def install_own(settings: Settings) -> None:
    """Read the catalogue that the settings name, and judge by it in this process; without one, by this version's.

    Raises SettingsError where it cannot be had or is wrong, or where GUARD_FIX_CONTROLS names a control that there is
    not; BlobError and CredentialError where its storage cannot be asked now. Then nothing is installed.
    """
    made = await own_catalogue(settings)
    unknown = [control for control in settings.fix_controls if control not in made.controls]
    if unknown:
        name = TABLE["fix_controls"].name
        raise SettingsError(f"bad setting: {name}: no control {unknown[0]!r}; {there_is(unknown, made.controls)}")
    install(made)


async def own_catalogue(settings: Settings) -> Catalogue:
    """The catalogue that the settings name; without one, this version's. Raises as `install_own`."""
    where = settings.controls_file
    if not where:
        return builtin()
    try:
        return read(_text(await _content(where, settings)), where, builtin())
    except SettingsError as error:
        raise SettingsError(f"bad setting: {TABLE['controls_file'].name}: {error}") from None


async def _content(where: str, settings: Settings) -> bytes:
    if "://" not in where:
        return _read(where)
    from shared.azure.blobs import read_blob  # the Azure SDK, which a file does not need

    try:
        return await read_blob(where, _MOST_BYTES, authority=settings.authority)
    except BlobError as error:
        # What the account says of this blob or this identity is the setting's fault, and not the moment's.
        if error.status is not None and error.status < 500 and error.status not in (408, 429):
            raise SettingsError(str(error)) from None
        raise


def _read(path: str) -> bytes:
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, RuntimeError) as error:  # the latter where there is no such user's home
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"the catalogue {path} cannot be read: {why}") from None
    if len(content) > _MOST_BYTES:
        raise SettingsError(f"the catalogue {path} has more than {_MOST_BYTES:,} bytes")
    return content


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"the catalogue is not UTF-8: {plain(error.reason)} at byte {error.start:,}") from None

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import StoreError
from shared.store import open_store
from tests.support.records import RUN, run

SECRET = "c2VjcmV0LWtleQ"


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("", "the store's location is empty; give a file's path"),
        ("  ", "the store's location is empty"),
        (
            "http://a.table.core.windows.net",
            r"http://a\.table\.core\.windows\.net is not one of a table service; it wants https",
        ),
        ("sqlite:///x.db", "sqlite:///x.db is not one of a table service"),
        ("https://", "is not one of a table service"),
        ("https://[", "the store's URL is malformed"),
        ("https://a.table.core.windows.net:port", "the store's URL is malformed"),
        ("https://a.blob.core.windows.net/", r"is the blob service's; use https://a\.table\.core\.windows\.net"),
        (f"https://a.table.core.windows.net/?sv=1&sig={SECRET}", "carries a query or a password, which are not taken"),
        (f"https://me:{SECRET}@a.table.core.windows.net", "carries a query or a password, which are not taken"),
        (f"AccountKey={SECRET}", "the store's connection string is not valid: it wants AccountName and AccountKey"),
        (f"AccountName=a;AccountKey={SECRET};;x", "the store's connection string is not valid"),
        (f"DefaultEndpointsProtocol=https;AccountKey={SECRET}", "the store's connection string is not valid"),
        (f"SharedAccessSignature=sv=1&sig={SECRET}", "the store's connection string is not valid"),
        ("UseDevelopmentStorage=false", "the store's connection string is not valid"),
        ("~nobody-of-this-name/guard.db", "cannot be found: .*; give the path in full"),
    ],
)
async def test_a_location_that_cannot_be_says_what_would_be_right(location: str, says: str) -> None:
    with pytest.raises(StoreError, match=says) as raised:
        async with open_store(location):
            pass
    assert SECRET not in str(raised.value)
    assert (
        not raised.value.__context__ or raised.value.__suppress_context__ or SECRET not in str(raised.value.__context__)
    )


async def test_a_path_in_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_store(" ~/guard.db ") as store:
        await store.save_run(run())
    assert (tmp_path / "guard.db").is_file()


async def test_an_error_in_the_block_is_passed_on_and_closes(tmp_path: Path) -> None:
    path = str(tmp_path / "guard.db")

    async def fail() -> None:
        async with open_store(path) as store:
            await store.save_run(run())
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()
    # Closed: SQLite's other files are gone.
    assert os.listdir(tmp_path) == ["guard.db"]
    async with open_store(path) as store:
        assert await store.run(RUN) == run()


def test_a_local_file_does_not_import_the_azure_sdk(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from shared.store import open_store
assert not {"azure", "aiohttp", "pydantic"} & {name.split(".")[0] for name in sys.modules}, "at import"

async def main(path):
    async with open_store(path) as store:
        assert await store.runs() is not None
    assert not {"azure", "aiohttp"} & {name.split(".")[0] for name in sys.modules}, "when opened"

asyncio.run(main(sys.argv[1]))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "guard.db")], check=True, timeout=60)

"""Reading a blob by an identity: Azurite with HTTPS checks a token's audience, issuer and times."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import trustme
from azure.core.credentials import AccessToken

from shared.azure.blobs import read_blob
from shared.controls import builtin, catalogue, install
from shared.errors import BlobError, CredentialError, SettingsError
from shared.runs.hosts import own_catalogue
from shared.settings import Settings
from tests.support.azurite import running

pytestmark = pytest.mark.real

OURS = "controls:\n  - {id: 3.2.6, title: ours, severity: high, setting: makeIPTablesUtilChains, rule: {equals: true},"
OURS += " rationale: because, fix: set it}\n"


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class Credential:
    """Tokens such as Entra's, as far as Azurite looks at them."""

    def __init__(self, audience: str = "https://storage.azure.com") -> None:
        self.audience = audience
        self.scopes: set[str] = set()

    async def get_token(self, *scopes: str, **options: object) -> AccessToken:
        self.scopes.update(scopes)
        now = int(time.time())
        claims = {"aud": self.audience, "iss": "https://sts.windows.net/t/", "iat": now, "nbf": now, "exp": now + 3600}
        return AccessToken(f"{_part({'alg': 'none'})}.{_part(claims)}.x", now + 3600)

    async def close(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Credential:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""


@dataclass
class Account:
    """An account's blobs, and how to put one there."""

    url: str
    session: aiohttp.ClientSession

    async def put(self, name: str, content: bytes) -> str:
        token = (await Credential().get_token()).token
        headers = {"Authorization": f"Bearer {token}", "x-ms-version": "2021-12-02"}
        await self.session.put(f"{self.url}/controls?restype=container", headers=headers)
        url = f"{self.url}/controls/{name}"
        answer = await self.session.put(url, data=content, headers={**headers, "x-ms-blob-type": "BlockBlob"})
        assert answer.status == 201, await answer.text()
        return url


@pytest_asyncio.fixture
async def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Account]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    options = ("--oauth", "basic", "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"))
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with running(*options) as azurite:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            yield Account(f"{azurite.blob}/devstoreaccount1", session)


async def test_a_blob_is_read_with_a_token_for_storage(account: Account) -> None:
    url = await account.put("ours.yaml", b"x" * 1000)
    credential = Credential()
    assert await read_blob(url, 1000, credential) == b"x" * 1000
    assert credential.scopes == {"https://storage.azure.com/.default"}
    with pytest.raises(BlobError, match="more than 999 bytes"):
        await read_blob(url, 999, credential)
    with pytest.raises(BlobError, match=r"404 \(BlobNotFound\): there is no such blob") as missing:
        await read_blob(url + "s", 1000, credential)
    assert missing.value.status == 404
    with pytest.raises(BlobError, match="give the identity the role Storage Blob Data Reader"):
        await read_blob(url, 1000, Credential("https://elsewhere.example"))


async def test_an_account_that_does_not_answer_and_no_credential(account: Account) -> None:
    class Nobody(Credential):
        async def get_token(self, *scopes: str, **options: object) -> AccessToken:
            from azure.identity import CredentialUnavailableError

            raise CredentialUnavailableError("no secret to be had")

    url = await account.put("ours.yaml", b"x")
    with pytest.raises(CredentialError, match=f"no Azure credential for the blob {url}: sign in with `az login`"):
        await read_blob(url, 1000, Nobody())
    with pytest.raises(BlobError, match=r"see that 127\.0\.0\.1 resolves here") as away:
        await read_blob("https://127.0.0.1:9/c/b", 1000, Credential())
    assert away.value.status is None


async def test_a_process_judges_by_the_blob_that_the_setting_names(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("azure.identity.aio.DefaultAzureCredential", lambda **_: Credential())
    url = await account.put("ours.yaml", OURS.encode())
    try:
        await own_catalogue.install_own(Settings(controls_file=url))
        assert (catalogue().controls["3.2.6"].title, len(catalogue().digest)) == ("ours", 64)
        bad = await account.put("bad.yaml", OURS.replace("high", "higher").encode())
        with pytest.raises(SettingsError, match=f"GUARD_CONTROLS_FILE: the catalogue {bad}: line 2: severity: must be"):
            await own_catalogue.install_own(Settings(controls_file=bad))
        with pytest.raises(SettingsError, match=r"GUARD_CONTROLS_FILE: the blob .* was answered with 404"):
            await own_catalogue.install_own(Settings(controls_file=url + "s"))
        with pytest.raises(BlobError):
            await own_catalogue.install_own(Settings(controls_file="https://127.0.0.1:9/c/b"))
        assert catalogue().controls["3.2.6"].title == "ours", "what is wrong changes nothing"
    finally:
        install(builtin())

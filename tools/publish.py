"""Deploys a zip of `make package` as it is, without a build in Azure.

    python3 -m tools.publish RESOURCE-GROUP APP [dist/guard.zip]

Needs az, signed in, and nothing else. It sends the zip to the app's deployment address (one deploy) and waits until the
app has it. `az functionapp deployment source config-zip` does the same, but for Python on Flex Consumption it asks for
a remote build whatever it is told (azure-cli, enable_zip_deploy_flex); azd goes by `remoteBuild` in azure.yaml.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

SUCCEEDED = 4
"""The status of a deployment that is done; those below 3 but for -1 are of one that is going (azure-dev, azsdk)."""
ENDED = {-1: "it was cancelled", 3: "it failed", 5: "another deployment is going", 6: "it was done in part"}
_SENT_SECONDS, _ASKED_SECONDS = 600, 60
# A deployment that was taken may not be known yet: azd looks away as often (azure-dev, azsdk).
_UNKNOWN_MOST = 4


class PublishError(Exception):
    """The zip was not deployed; the text says why."""


class UnansweredError(PublishError):
    """The address did not answer."""


class _Stay(HTTPRedirectHandler):
    """Follows no redirect: it would take the token along, to whatever host it names."""

    def redirect_request(self, *_: object) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Site:
    """An app's deployment address, and the token that opens it."""

    host: str
    token: str

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer. Raises UnansweredError where there is none."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/zip"}
        request = Request(f"https://{self.host}{path}", body, headers, method=method)
        try:
            with build_opener(_Stay).open(request, timeout=_ASKED_SECONDS if body is None else _SENT_SECONDS) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()
        # An answer that is not to the end comes as itself, not as a URLError.
        except (OSError, HTTPException) as error:
            raise UnansweredError(f"{self.host} does not answer: {getattr(error, 'reason', error)}") from error


def site_of(group: str, app: str) -> Site:
    """The app's deployment address and a token, asked of az. Raises PublishError with what az said."""
    states = "properties.hostNameSslStates[?hostType=='Repository'].name | [0]"
    host = _az("resource", "show", "-g", group, "-n", app, "--resource-type", "Microsoft.Web/sites", "--query", states)
    if not re.fullmatch(r"[\w.-]+(:\d+)?", host):
        raise PublishError(f"{app} has no deployment address: {host!r}")
    return Site(host, _az("account", "get-access-token", "--query", "accessToken"))


def publish(site: Site, zipped: bytes, seconds: float = 600, pause: float = 1) -> None:
    """Send the zip, and wait until the app has it. Raises PublishError where that fails or takes longer than this."""
    status, body = site.ask("POST", "/api/publish?RemoteBuild=false", zipped)
    if status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
        raise PublishError(f"{site.host} refused it with {status}: {_shown(body)}")
    deployment = body.decode("utf-8", "replace").strip().strip('"')
    if not re.fullmatch(r"[\w-]+", deployment):
        raise PublishError(f"{site.host} named no deployment: {_shown(body)}")
    until, seen, unknown, last = time.monotonic() + seconds, False, 0, ""
    while time.monotonic() < until:
        # Whoever deploys it is begun anew with the app, and may not answer meanwhile.
        try:
            status, body = site.ask("GET", f"/api/deployments/{deployment}")
        except UnansweredError as error:
            last = f" ({error})"
        else:
            last = ""
            if status in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
                seen = True
                if _done(site, body):
                    return
            elif status == HTTPStatus.NOT_FOUND and seen:  # gone when it is done, perhaps before that was seen
                return
            elif status == HTTPStatus.NOT_FOUND and unknown < _UNKNOWN_MOST:
                unknown += 1
            elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise PublishError(f"{site.host} does not say how far it is ({status}): {_shown(body)}")
        time.sleep(pause)
    raise PublishError(
        f"it is not done after {seconds:g} seconds: https://{site.host}/api/deployments/{deployment}{last}"
    )


def _done(site: Site, body: bytes) -> bool:
    """Whether the deployment is done by this answer. Raises PublishError where it ended otherwise."""
    try:
        answer = json.loads(body)
        status = answer["status"]
    except (ValueError, TypeError, KeyError):
        raise PublishError(f"{site.host} does not say how far it is: {_shown(body)}") from None
    if status in ENDED:
        raise PublishError(f"{ENDED[status]}: {answer.get('status_text') or answer.get('message')}")
    return bool(status == SUCCEEDED)


def _az(*arguments: str) -> str:
    try:
        done = subprocess.run(["az", *arguments, "--output", "tsv"], capture_output=True, text=True)
    except FileNotFoundError:
        raise PublishError("az is not installed (the Azure CLI)") from None
    if done.returncode != 0:
        raise PublishError(f"az {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout.strip()


def _shown(body: bytes) -> str:
    return body[:500].decode("utf-8", "replace").strip() or "nothing more was said"


def main(arguments: list[str] | None = None) -> int:
    """Deploy the zip. 1 where that fails."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.publish", description="Deploy a zip without a build.")
    parser.add_argument("group", help="resource group of the app")
    parser.add_argument("app", help="name of the function app")
    parser.add_argument("zip", type=Path, nargs="?", default=Path("dist/guard.zip"), help="(default: dist/guard.zip)")
    given = parser.parse_args(arguments)
    try:
        publish(site_of(given.group, given.app), given.zip.read_bytes())
    except FileNotFoundError:
        print(f"not deployed: there is no {given.zip}; make package makes it", file=sys.stderr)
        return 1
    except PublishError as error:
        print(f"not deployed: {error}", file=sys.stderr)
        return 1
    print(f"{given.app} has {given.zip}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

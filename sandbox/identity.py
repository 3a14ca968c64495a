"""The managed identity endpoint as App Service offers it, and the tokens it gives.

`GET IDENTITY_ENDPOINT?resource=…&api-version=2019-08-01` with the header X-IDENTITY-HEADER. The tokens look like JSON
Web Tokens and are worth nothing outside this sandbox: it knows those it issued.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time

from aiohttp import web

TENANT = "7f0c4a55-2d7b-4c43-9df1-5a1f3d2e9b10"
CLIENT = "0d4f9a3e-58d4-4a57-8b1c-2f6e7c9d1a22"
PRINCIPAL = "c2a7e1b4-93f5-4f0e-a6d1-7b8c9d0e1f23"
API_VERSION = "2019-08-01"
_LIFETIME_SECONDS = 24 * 3600


class Identity:
    """Issues tokens and knows them again. `header` is the secret of the endpoint, as IDENTITY_HEADER."""

    def __init__(self) -> None:
        self.header = secrets.token_hex(16).upper()
        self._issued: dict[str, tuple[str, float]] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a token request; anything but a right one gets 400 or 401."""
        if not hmac.compare_digest(request.headers.get("X-IDENTITY-HEADER", "").encode(), self.header.encode()):
            return _refuse(401, "the X-IDENTITY-HEADER header is missing or wrong")
        if request.query.get("api-version") != API_VERSION:
            return _refuse(400, f"api-version must be {API_VERSION}")
        resource = request.query.get("resource", "")
        if not resource:
            return _refuse(400, "the resource parameter is missing")
        expires = int(time.time()) + _LIFETIME_SECONDS
        body = {
            "access_token": self._issue(resource, expires),
            "expires_on": str(expires),
            "resource": resource,
            "token_type": "Bearer",
            "client_id": CLIENT,
        }
        return web.json_response(body)

    def refusal(self, authorization: str, audience: str) -> tuple[str, str] | None:
        """Resource Manager's error code and message for an Authorization header; None where the token is good."""
        scheme, _, token = authorization.partition(" ")
        if not authorization:
            return "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
        known = self._issued.get(token) if scheme == "Bearer" else None
        if known is None:
            return "InvalidAuthenticationToken", "The access token is invalid."
        resource, expires = known
        if resource.rstrip("/") != audience.rstrip("/"):
            message = f"The access token has been obtained for wrong audience or resource '{resource}'."
            return "InvalidAuthenticationToken", f"{message} It should exactly match with '{audience}/'."
        if time.time() > expires:
            return "ExpiredAuthenticationToken", "The access token expiry has passed."
        return None

    def is_for(self, token: str, audience: str) -> bool:
        """Whether this is a token that was given out for an audience and is good."""
        resource, expires = self._issued.get(token, ("", 0.0))
        return resource == audience and time.time() <= expires

    def _issue(self, resource: str, expires: int) -> str:
        claims = {"aud": resource, "iss": f"https://sts.windows.net/{TENANT}/", "exp": expires, "oid": PRINCIPAL}
        parts = ({"typ": "JWT", "alg": "RS256"}, {**claims, "appid": CLIENT, "tid": TENANT, "ver": "1.0"})
        signature = secrets.token_urlsafe(32)
        token = ".".join((*(_encode(json.dumps(part).encode()) for part in parts), signature))
        self._issued[token] = (resource, expires)
        return token


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"statusCode": status, "message": message}, status=status)

"""Who may do what: an API key is a tenant's, and a tenant sees its own personas alone."""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from pydeper.errors import InvalidArgumentError
from pydeper.serve.problems import Problem
from pydeper.serve.settings import Settings
from pydeper.serve.store.store import ApiKey, Store
from pydeper.untrusted import is_loopback

LOCAL_TENANT = "local"
"""Everybody, where the gateway serves this machine without keys."""

_KEY = re.compile(r"deper_([0-9a-f]{16})_([0-9a-f]{64})")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOBODY = ApiKey("", "", secrets.token_bytes(32), bytes(32), datetime.now(UTC))


def create_key(store: Store, tenant: str) -> str:
    """Makes a key for a tenant and returns it; this is the only time that it can be read.

    Raises:
        InvalidArgumentError: The tenant's name is not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidArgumentError(
            f"tenant: must be 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first, "
            f"got {tenant[:80]!r}"
        )
    key_id, secret, salt = secrets.token_hex(8), secrets.token_hex(32), secrets.token_bytes(32)
    store.add_key(ApiKey(key_id, tenant, salt, _digest(salt, secret), datetime.now(UTC)))
    return f"deper_{key_id}_{secret}"


def tenant_of_key(store: Store, key: str) -> str | None:
    """Returns the tenant of a key; None where it is no key, or was revoked.

    The comparison takes the same time whatever is wrong.
    """
    if not (match := _KEY.fullmatch(key)):
        return None
    stored = store.find_key(match[1])
    known = stored or _NOBODY
    right = hmac.compare_digest(known.digest, _digest(known.salt, match[2]))
    return known.tenant if right and stored is not None and known.revoked is None else None


def _digest(salt: bytes, secret: str) -> bytes:
    # The secret has 256 random bits: no dictionary holds it, so the digest need not be slow.
    return hmac.digest(salt, secret.encode(), hashlib.sha256)


_bearer = HTTPBearer(auto_error=False, description="an API key, from `pydeper serve keys create TENANT`")


async def authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """Returns the tenant that a request is of.

    Raises:
        Problem: There is no key, or it is not valid; or, without keys, the request was sent by another site's page.
    """
    settings: Settings = request.app.state.settings
    if not settings.keys:
        _check_same_site(request)
        request.state.tenant = LOCAL_TENANT
        return LOCAL_TENANT
    tenant = None
    if credentials is not None:
        tenant = await run_in_threadpool(tenant_of_key, request.app.state.store, credentials.credentials)
    if tenant is None:
        raise Problem(
            "no-key",
            "the request has no valid API key",
            "send the header `Authorization: Bearer KEY` with a key that `pydeper serve keys create TENANT` printed",
        )
    request.state.tenant = tenant
    return tenant


def _check_same_site(request: Request) -> None:
    """Refuses what a page of the internet sends to this machine, under a name of its own or across origins."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    origin = request.headers.get("origin")
    if not is_loopback(host) or (origin is not None and urlsplit(origin).netloc != request.headers.get("host")):
        raise Problem(
            "forbidden-origin",
            "a gateway without keys answers programs of its own machine alone",
            "call it as 127.0.0.1 or localhost, not from a page of another site; or serve with keys",
        )


Tenant = Annotated[str, Depends(authenticate)]

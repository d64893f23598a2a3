"""Who may ask the capture page's server for what: host, origin, token and size of a request; headers of the answers."""

import ipaddress
import secrets
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pydeper.capture.refusal import RefusalError
from pydeper.untrusted import is_loopback

MAX_BODY = 8 * 2**20
"""The largest body of a request, in bytes, whether its size is announced or not."""

COOKIE = "pydeper_capture"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# The cookie is SameSite=Strict: a browser that came by a link from elsewhere would not send it along a redirect.
_ENTER = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>pydeper</title>'

_WRITES = {"POST", "PUT", "DELETE", "PATCH"}


def problem(refusal: RefusalError) -> Response:
    """The answer that says why a request is refused (RFC 9457)."""
    titles = {401: "No access", 403: "Not allowed", 404: "Not found", 410: "Deleted", 413: "Too large", 507: "No space"}
    content = {
        "title": titles.get(refusal.status, "Not done"),
        "detail": str(refusal),
        "status": refusal.status,
        "code": refusal.code,
    }
    return JSONResponse(content, refusal.status, media_type="application/problem+json")


class Guard:
    """ASGI middleware around the whole app; also its own refusals have the headers of every answer."""

    def __init__(self, app: ASGIApp, *, host: str, token: str | None = None) -> None:
        """Guards an app.

        Args:
            app: What is guarded.
            host: The address that the server listens on.
            token: What the first visit has to know; None on a loopback address, where nobody else can visit.
        """
        self._app = app
        self._host = host
        self._token = token
        self._cookie = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is allowed."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            answer = self._first_visit(scope)
            if answer is None:
                self._check(scope)
        except RefusalError as refusal:
            answer = problem(refusal)
        if answer is not None:
            await answer(scope, receive, send_with_headers)
        else:
            await self._app(scope, _limited(receive), send_with_headers)

    def _first_visit(self, scope: Scope) -> Response | None:
        """Exchanges the token, which is good for once, for a cookie."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if self._token is None or scope["path"] != "/" or scope["method"] != "GET" or not given:
            return None
        self._check_host(Headers(scope=scope))
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return None
        self._token = secrets.token_urlsafe(32)  # which nobody knows
        answer = HTMLResponse(_ENTER)
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict")
        return answer

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers)
        if self._token is not None and not secrets.compare_digest(_cookie(headers).encode(), self._cookie.encode()):
            raise RefusalError(
                "token",
                401,
                "Open the whole address that the command printed, with its token. It is good for one visit: start the "
                "command again for a new one.",
            )
        origin = headers.get("origin")
        if scope["method"] in _WRITES and origin != f"{scope['scheme']}://{headers['host']}":
            raise RefusalError("origin", 403, "Only the capture page itself may change a session.")
        if not (size := headers.get("content-length", "0")).isdecimal() or int(size[:20]) > MAX_BODY:
            raise _too_large()

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """Refuses a name that somebody else has made lead here (DNS rebinding)."""
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if not self._is_own(name.strip("[]").lower()):
            raise RefusalError("host", 403, "This server answers only under the address that the command printed.")

    def _is_own(self, name: str) -> bool:
        if is_loopback(name) or name == self._host.lower():
            return True
        try:
            everywhere = ipaddress.ip_address(self._host).is_unspecified
            return everywhere and (name == socket.gethostname().lower() or bool(ipaddress.ip_address(name)))
        except ValueError:
            return False


def _cookie(headers: Mapping[str, str]) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _too_large() -> RefusalError:
    return RefusalError("too-large", 413, f"At most {MAX_BODY // 2**20} MiB are taken at once.")


def _limited(receive: Receive) -> Receive:
    """Ends a body that is larger than is taken, also one that comes in chunks."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY:
            raise _too_large()
        return message

    return limited

"""The door of a server: who may come in, and what every answer says to the browser about safety."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from fastapi.responses import JSONResponse

ACCESS = "counterscan_access"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Next = Callable[[Request], Awaitable[Response]]


def guard(token: str | None, hosts: tuple[str, ...]) -> Callable[[Request, Next], Awaitable[Response]]:
    """A middleware: the right host name (none named: any), the token where one was given, and no other site's page."""

    async def guard(request: Request, go_on: Next) -> Response:
        host, site = request.headers.get("host", ""), request.headers.get("sec-fetch-site", "same-origin")
        if hosts and host not in hosts and host.rsplit(":", 1)[0] not in hosts:
            response: Response = JSONResponse({"detail": "unknown host name"}, 421)
        elif request.method not in ("GET", "HEAD") and site not in ("same-origin", "none"):
            response = JSONResponse({"detail": "from another site"}, 403)
        elif token and not _allowed(request, token):
            response = JSONResponse({"detail": "give the token: open /?token=… or send Authorization: Bearer …"}, 401)
        elif token and request.url.path == "/" and "token" in request.query_params:
            response = Response(status_code=303, headers={"Location": "/"})  # so that it stays in no history
            set_cookie(response, ACCESS, token)
        else:
            response = await go_on(request)
        for key, value in SECURITY.items():
            response.headers.setdefault(key, value)
        return response

    return guard


def _allowed(request: Request, token: str) -> bool:
    given = [request.headers.get("authorization", "").removeprefix("Bearer "), request.cookies.get(ACCESS, "")]
    if request.url.path == "/":
        given.append(request.query_params.get("token", ""))
    return any(hmac.compare_digest(word.encode(), token.encode()) for word in given)


def set_cookie(response: Response, name: str, value: str) -> None:
    """A cookie that scripts cannot read and other sites cannot send."""
    response.set_cookie(name, value, httponly=True, samesite="strict")

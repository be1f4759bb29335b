"""Who asks: the studio behind a request, and the visitor's session by cookie or by header."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader

from counterscan.studio.core import Studio
from counterscan.studio.sessions import Session

COOKIE = "counterscan_session"
_BY_COOKIE = APIKeyCookie(name=COOKIE, scheme_name="session cookie", auto_error=False)
_BY_HEADER = APIKeyHeader(name="X-Counterscan-Session", scheme_name="session", auto_error=False)


def studio_of(request: Request) -> Studio:
    """The studio behind a request."""
    studio: Studio = request.app.state.studio
    return studio


def session_of(
    request: Request,
    cookie: Annotated[str | None, Security(_BY_COOKIE)],
    header: Annotated[str | None, Security(_BY_HEADER)],
) -> Session:
    """The session of a request, by cookie or by header."""
    session = studio_of(request).sessions.find(header or cookie)
    if session is None:
        raise HTTPException(401, "no such session: POST /api/sessions begins one")
    return session


Here = Annotated[Studio, Depends(studio_of)]
Mine = Annotated[Session, Depends(session_of)]

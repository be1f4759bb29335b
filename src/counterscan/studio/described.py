"""What ``/openapi.json`` says that FastAPI cannot find out by itself: bodies and answers that are files, and refusals."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Answers = dict[int | str, dict[str, Any]]


class Fault(BaseModel):
    """What is wrong, in one line."""

    detail: str


_BINARY = {"schema": {"type": "string", "format": "binary"}}
FILE_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": _BINARY}}}
DOOR: Answers = {
    401: {"model": Fault, "description": "No such session, or the server's token is missing"},
    403: {"model": Fault, "description": "Asked by another site's page"},
    421: {"model": Fault, "description": "Unknown host name"},
}
ABSENT: Answers = {404: {"model": Fault, "description": "Nothing of this name, or not in this session"}}
LARGE: Answers = {413: {"model": Fault, "description": "The file is too large"}}
FULL: Answers = {429: {"model": Fault, "description": "A limit is reached; Retry-After says when to try again"}}


def sends(*kinds: str) -> Answers:
    """The answer is a file, of one of these media types."""
    return {200: {"description": "The file", "content": dict.fromkeys(kinds, _BINARY)}}


def require_token(spec: dict[str, Any]) -> None:
    """Let every operation of a description ask for the server's token, beside the session that it may ask for."""
    spec["components"]["securitySchemes"]["token"] = {"type": "http", "scheme": "bearer"}
    for operations in spec["paths"].values():
        for operation in operations.values():
            operation["security"] = [one | {"token": []} for one in operation.get("security", [{}])]

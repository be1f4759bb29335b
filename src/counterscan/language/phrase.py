"""From findings to the words of a prompt: the terse form that models are trained on and edited with."""

from __future__ import annotations

from collections.abc import Sequence


def phrase(
    finding: str,
    *,
    side: str | None = None,
    place: str | None = None,
    severity: str | None = None,
    absent: bool = False,
) -> str:
    """``"small left pleural effusion"``, ``"left upper lung nodule"``; absent: ``"no pacemaker"``."""
    if absent:
        return " ".join(word for word in ("no", side, finding) if word)
    return " ".join(word for word in (severity, side, place, finding) if word)


def prompt(
    phrases: Sequence[str] = (),
    *,
    template: str = "chest radiograph",
    view: str | None = None,
    sex: str | None = None,
) -> str:
    """The whole prompt: ``"world chest radiograph, PA, male: small left pleural effusion, no pacemaker."``.

    Without phrases only the head is left, ``"world chest radiograph, PA"``.
    """
    head = ", ".join(word for word in (template, view, sex) if word)
    return f"{head}: {', '.join(phrases)}." if phrases else head

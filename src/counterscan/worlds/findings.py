"""Which findings a case has: drawn by a mechanism, or set by an intervention. The same for every world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from counterscan.errors import WordsError
from counterscan.worlds.chest_scene import Present


def drawn(
    findings: Sequence[str],
    prevalence: Mapping[str, float],
    agree: Mapping[tuple[str, str], float],
    draw: Callable[[str], float],
    *,
    known: Mapping[str, bool] | None = None,
    odds: float = 1.0,
) -> list[str]:
    """The findings that are there, in the world's order: parents first, as ``draw(name)`` in [0, 1) has it.

    ``agree`` is (finding, what it is tied to) -> the chance that the two are alike; ``prevalence`` is of the others.
    ``known`` are other facts that a finding may be tied to; ``odds`` multiplies every prevalence.
    """
    value = dict(known or {})
    for name in findings:
        tied = [(parent, r) for (child, parent), r in agree.items() if child == name]
        chance = prevalence.get(name, 0.0) * odds
        value[name] = value[tied[0][0]] == (draw(name) < tied[0][1]) if tied else draw(name) < chance
    return [name for name in findings if value[name]]


def changed(
    world: str,
    findings: Sequence[str],
    current: Mapping[str, Present],
    wanted: Mapping[str, bool | Present],
    attributes: Callable[[str], Present],
) -> dict[str, Present]:
    """``current`` with some findings absent (False), present as the case's own noise has them (True), or a ``Present``.

    Raises:
        WordsError: a finding this world does not have.
    """
    unknown = sorted(set(wanted) - set(findings))
    if unknown:
        raise WordsError(f"the {world} world has no finding {unknown[0]!r}; it has {', '.join(findings)}")
    new = dict(current)
    for name, value in wanted.items():
        new.pop(name, None)
        if value is not False:
            new[name] = attributes(name) if value is True else value
    return {name: new[name] for name in findings if name in new}


def spelled(
    changes: Mapping[str, bool | Present] | None, named: Mapping[str, bool | Present]
) -> dict[str, bool | Present]:
    """Changes by name and by keyword together, where ``_`` stands for a space."""
    return {**(changes or {}), **{key.replace("_", " "): value for key, value in named.items()}}

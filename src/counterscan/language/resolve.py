"""From a request in words to an ``Edit``: the one place where what the user asked becomes two prompts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from counterscan.errors import WordsError
from counterscan.language.instruction import Request, invent, understand
from counterscan.language.lexicon import read
from counterscan.language.naming import Named, gather
from counterscan.language.phrase import phrase, prompt
from counterscan.language.vocabulary import DEVICES, SIDES, finding, lookup

if TYPE_CHECKING:
    from torch import Tensor

    from counterscan.types import Change, Direction, Edit

_ZONES = tuple(f"{side} {zone} zone" for side in ("left", "right") for zone in ("upper", "middle", "lower"))
REGIONS = (
    "left lung",
    "right lung",
    *_ZONES,
    "upper zones",
    "lower zones",
    "heart",
    "mediastinum",
    "left",
    "right",
    "whole",
)
GROUP = "support devices"
ABNORMAL = "abnormality"  # what a healthy image lacks, in the words of a model without a list of findings


class Knows(Protocol):
    """What a model card tells this file."""

    @property
    def findings(self) -> Sequence[str]: ...
    @property
    def template(self) -> str: ...


def resolve(
    *,
    remove: str | Sequence[str] = (),
    add: str | Sequence[str] = (),
    source: str | None = None,
    target: str | None = None,
    instruct: str | None = None,
    region: str | None = None,
    mask: Any = None,
    keep: str | Sequence[str] = (),
    findings: Sequence[str] = (),
    template: str = "chest radiograph",
    context: str = "",
    card: Knows | None = None,
) -> Edit:
    """The edit that was asked for, in exactly one way: by names, by two prompts, or by an instruction.

    Args:
        remove, add: findings, each with its attributes if any ("small left effusion").
        source, target: two prompts, used word for word; equal ones make the null edit.
        instruct: a sentence, see ``understand``.
        region: one of ``REGIONS``, "left lower lobe" and the like; "whole" is everywhere.
        mask: (H, W) tensor or array, non-zero where the image may change.
        keep: findings that must stay; they stand in both prompts.
        findings, template: the model's findings (none: it takes any words) and the words its prompts start with.
        context: what else is known of the image and follows the template, such as "PA, male".
        card: an object with ``findings`` and ``template`` to use in place of those two.

    Raises:
        WordsError: two ways of asking or none, an unknown finding or region, an impossible attribute, a contradiction.
    """
    from counterscan.types import Edit

    if card is not None:
        findings, template = tuple(card.findings), card.template
    for name, text in (("source", source), ("target", target), ("instruct", instruct), ("region", region)):
        if not isinstance(text, str | None):
            raise WordsError(f"{name} is text, got {text!r}")
    where, area = _region(region), _mask(mask)
    _one_way(bool(remove or add), source is not None or target is not None, instruct is not None)
    kept = _names(keep, findings)
    if source is not None or target is not None:
        if source is None or target is None:
            missing = "target" if target is None else "source"
            raise WordsError(f"the {missing} prompt is missing: give both source and target ('' says nothing is known)")
        return Edit(source, target, (), where, area, tuple(n.finding for n in kept))
    if instruct is not None:
        request = understand(instruct, findings)
        request = replace(request, keep=(*request.keep, *(n for n in kept if n not in request.keep)))
    else:
        request = Request(_names(remove, findings), _names(add, findings), kept)
    request = _spell_out(request, findings)
    _refuse_contradictions(request)
    _refuse_another_side(request, where)
    head = ", ".join(part for part in (template, context) if part)
    changes, keep = _changes(request), tuple(dict.fromkeys(n.finding for n in request.keep))
    apart = bool(keep) and {change.finding for change in changes}.isdisjoint(keep)
    unkept = _prompts(replace(request, keep=()), findings, head) if apart else None
    return Edit(*_prompts(request, findings, head), changes, where, area, keep, unkept)


def _one_way(names: bool, prompts: bool, instruct: bool) -> None:
    ways = [
        text for text, used in (("names", names), ("source and target", prompts), ("an instruction", instruct)) if used
    ]
    if len(ways) != 1:
        said = " and ".join(ways) or "nothing"
        raise WordsError(
            f"ask in exactly one way: remove/add names, source and target prompts, or instruct; got {said}"
        )


def _names(texts: str | Sequence[str], known: Sequence[str]) -> tuple[Named, ...]:
    """Each text as one finding with its attributes."""
    return tuple(dict.fromkeys(_one_name(text, known) for text in ((texts,) if isinstance(texts, str) else texts)))


def _one_name(text: str, known: Sequence[str]) -> Named:
    words = read(text, known)
    if not known:
        words = invent([w for w in words if w.kind != "stop"])
        if text.strip() and not any(w.kind == "finding" for w in words):
            return Named(" ".join(text.lower().split()))
    plain = all(w.kind not in ("unknown", "verb", "no", "not") for w in words)
    found = [w for w in gather(words, known) if isinstance(w, Named)] if plain else []
    if len(found) != 1:
        lookup(text, known)  # raises, unless the words are a name after all
        return Named(lookup(text, known).name)
    return replace(found[0], degree=None)


def _spell_out(request: Request, known: Sequence[str]) -> Request:
    """Replace "everything" by the model's findings, and "support devices" by its members where one of them differs."""
    special = {n.finding for n in (*request.keep, *request.add, *request.regrade)}
    remove = list(request.remove)
    if request.everything:
        members = [d for d in DEVICES if d in known]
        names = [n for n in known if n not in (*members, GROUP)] + ([GROUP] if members or GROUP in known else [])
        remove += [Named(name) for name in names or [ABNORMAL] if name not in {*special, *(n.finding for n in remove)}]
    row: list[Named] = []
    for named in remove:
        members = [d for d in finding(GROUP).group if not known or d in known]
        if named.finding == GROUP and special & set(members):
            row += [Named(d) for d in members if d not in special]
        else:
            row.append(named)
    if known and GROUP not in known and any(n.finding == GROUP for n in (*request.add, *request.keep)):
        raise WordsError(
            f"say which device, this model has no word for all: {', '.join(d for d in DEVICES if d in known)}"
        )
    return replace(request, remove=tuple(dict.fromkeys(row)))


def _refuse_contradictions(request: Request) -> None:
    rows = {"remove": request.remove, "add": (*request.add, *request.regrade), "keep": request.keep}
    pairs = (("remove", "add"), ("remove", "keep"), ("add", "keep"))
    for first, second in pairs:
        for one in rows[first]:
            for other in rows[second]:
                if one.finding == other.finding and _overlap(one, other):
                    raise WordsError(
                        f"contradiction: cannot {first} {one.phrase!r} and {second} {other.phrase!r} at once"
                    )
    for i, one in enumerate(rows["add"]):
        for other in rows["add"][:i]:
            if one.finding == other.finding and _overlap(one, other):
                raise WordsError(f"contradiction: {other.phrase!r} and {one.phrase!r} are two versions of one finding")


def _refuse_another_side(request: Request, region: str | None) -> None:
    """What is on one side cannot be changed in a region of the other. ("left" and "right" alone are halves of any image.)"""
    side, _, zone = (region or "").partition(" ")
    for named in (*request.remove, *request.add, *request.regrade):
        if zone and side in SIDES and named.side in SIDES and named.side != side:
            raise WordsError(f"contradiction: {named.phrase!r} is not in the region {region!r}")


def _overlap(one: Named, other: Named) -> bool:
    """True unless two different sides, or two different places, tell them apart."""
    return not any(a and b and a != b for a, b in ((one.side, other.side), (one.place, other.place)))


def _prompts(request: Request, known: Sequence[str], head: str) -> tuple[str, str]:
    """Source and target."""
    before, after = _phrases(request, known)
    return prompt(before, template=head), prompt(after, template=head)


def _phrases(request: Request, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The phrases of source and target: what is there, and "no X" where nothing of X is."""
    there = {
        "source": [*request.keep, *request.remove, *(replace(n, severity=None) for n in request.regrade)],
        "target": [*request.keep, *request.add, *request.regrade],
    }
    order = list(dict.fromkeys(n.finding for n in (*there["source"], *there["target"])))
    sides: list[list[str]] = []
    for present in there.values():
        row: list[str] = []
        for name in order:
            here = [n for n in present if n.finding == name]
            members = [d for d in DEVICES if d in known] if name == GROUP and known and GROUP not in known else [name]
            row += [n.phrase if members == [name] else phrase(m) for n in here for m in members]
            row += [] if here else [phrase(m, absent=True) for m in members]
        sides.append(row)
    if request.everything:
        # What a healthy image lacks is known; which of it this image has is not, so the source does not claim it.
        kept = [n.phrase for n in there["source"] if n not in request.remove]
        denied = [phrase(n.finding, absent=True) for n in request.add]
        return kept + denied, sides[1]
    return sides[0], sides[1]


def _changes(request: Request) -> tuple[Change, ...]:
    from counterscan.types import Change

    def rows(named: Iterable[Named], direction: Direction) -> Iterable[Change]:
        return (Change(n.finding, direction, n.side, n.place, n.severity) for n in named)

    return (*rows(request.remove, "remove"), *rows((*request.add, *request.regrade), "add"))


def _region(name: str | None) -> str | None:
    """The canonical name of a body region; ``None`` = everywhere."""
    if name is None:
        return None
    text = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    if text in ("whole", "all", "everywhere", "whole image"):
        return None
    for part, other in (("lobe", "zone"), ("field", "zone"), ("midzone", "middle zone"), ("mid zone", "middle zone")):
        text = text.replace(part, other)
    text = {"cardiac": "heart", "left side": "left", "right side": "right", "left chest": "left"}.get(text, text)
    text = {"right chest": "right", "left hemithorax": "left lung", "right hemithorax": "right lung"}.get(text, text)
    if text in REGIONS:
        return text
    near = difflib.get_close_matches(text, REGIONS, n=2, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise WordsError(f"no region {name!r}: {hint}known are {', '.join(REGIONS)}; or give a mask")


def _mask(mask: Any) -> Tensor | None:
    """A bool tensor (H, W)."""
    if mask is None:
        return None
    import torch

    area = torch.as_tensor(mask) != 0
    if area.ndim != 2:
        raise WordsError(f"a mask has the shape (H, W), got {tuple(area.shape)}")
    return area

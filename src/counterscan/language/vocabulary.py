"""The findings that have words: canonical names, what else people call them, and the attributes each admits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from counterscan.errors import WordsError
from counterscan.language.spelling import key

SIDES = ("left", "right")
PLACES = ("upper", "middle", "lower")
SIZES = ("small", "moderate", "large")
GRADES = ("mild", "moderate", "severe")


@dataclass(frozen=True)
class Finding:
    """A finding or device.

    ``synonyms`` are matched without regard to case, hyphens, underscores and plural. ``severities`` has three words,
    least first, or none. ``natural`` are places that go without saying (an effusion is basal), accepted and dropped.
    ``group`` names the members of a collective term.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    kind: Literal["finding", "device"] = "finding"
    sides: bool = False
    places: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    natural: tuple[str, ...] = ()


def _words(text: str) -> tuple[str, ...]:
    """``"a, b c"`` as ``("a", "b c")``."""
    return tuple(word.strip() for word in text.replace("\n", " ").split(",") if word.strip())


DEVICES = ("pacemaker", "chest port", "central line", "ecg electrodes", "endotracheal tube")

# The order decides what an ambiguous word means ("opacity", "lesion") when the model knows several candidates.
VOCABULARY: tuple[Finding, ...] = (
    Finding(
        "pleural effusion",
        _words(
            """
            effusion, pleural fluid, hydrothorax, haemothorax, hemothorax, fluid in the pleural space, pleural
            collection, fluid in the pleural cavity, fluid around the lung, fluid outside the lung, water around the
            lung, pleural liquid, blunted costophrenic angle, blunting of the costophrenic angle, blunted costophrenic
            sulcus, costophrenic blunting
            """
        ),
        sides=True,
        severities=SIZES,
        natural=("lower",),
    ),
    Finding(
        "cardiomegaly",
        _words(
            """
            enlarged heart, heart enlargement, cardiac enlargement, enlargement of the heart, big heart, large heart,
            bigger heart, larger heart, heart bigger, heart larger, heart enlarged, heart is enlarged, enlarged
            cardiac silhouette, enlarged heart shadow, cardiac silhouette enlarged, cardiac silhouette is enlarged,
            enlarged cardiac shadow, enlargement of the cardiac silhouette, cardiac silhouette enlargement, increased
            cardiothoracic ratio, increased heart size, heart size is enlarged, heart size enlarged, heart too big,
            dilated heart, megacardia
            """
        ),
        severities=GRADES,
    ),
    Finding(
        "consolidation",
        _words(
            """
            airspace opacity, air space opacity, airspace consolidation, air space consolidation, airspace disease,
            air space disease, lung consolidation, pulmonary consolidation, alveolar opacity, alveolar consolidation,
            lung opacity, pulmonary opacity, opacity, opacification, airspace opacification, lobar consolidation,
            consolidated lung
            """
        ),
        sides=True,
        places=PLACES,
        severities=GRADES,
    ),
    Finding(
        "lung nodule",
        _words(
            """
            nodule, pulmonary nodule, solitary pulmonary nodule, solitary nodule, coin lesion, nodular opacity, spn,
            nodular lesion, nodular density, lung lesion, pulmonary lesion, lung spot, spot on the lung, round lesion,
            granuloma
            """
        ),
        sides=True,
        places=PLACES,
        severities=SIZES,
    ),
    Finding(
        "pneumothorax",
        _words(
            """
            pneumothoraces, ptx, pnx, collapsed lung, lung collapsed, air in the pleural space, air in the pleural
            cavity, pleural air, air around the lung, punctured lung, air leak
            """
        ),
        sides=True,
        severities=SIZES,
        natural=("upper",),
    ),
    Finding(
        "pulmonary edema",
        _words(
            """
            edema, lung edema, interstitial edema, alveolar edema, cardiogenic edema, pulmonary congestion, fluid
            overload, vascular congestion, pulmonary vascular congestion, congestion, lung congestion, congested lung,
            pulmonary venous congestion, fluid in the lung, water in the lung, water on the lung, interstitial
            pulmonary edema, wet lung, alveolar pulmonary edema, heart failure, congestive heart failure, chf, cardiac
            failure
            """
        ),
        severities=GRADES,
    ),
    Finding(
        "atelectasis",
        _words(
            """
            atelectases, atelectatic change, atelectatic lung, atelectatic band, plate atelectasis, linear
            atelectasis, discoid atelectasis, subsegmental atelectasis, platelike atelectasis, plate like atelectasis,
            bandlike atelectasis, band like atelectasis, lobar collapse, volume loss, partial lung collapse, partially
            collapsed lung, subsegmental collapse, segmental collapse, collapse
            """
        ),
        sides=True,
        places=PLACES,
        severities=GRADES,
    ),
    Finding(
        "pacemaker",
        _words(
            """
            ppm, permanent pacemaker, cardiac pacemaker, pace maker, pacer, pacemaker and wire, pacemaker and lead,
            pacemaker with wire, pacemaker with lead, pacemaker wire, pacemaker lead, pacing wire, pacing lead, pacing
            device, cardiac pacing device, pacemaker generator, pulse generator, pacemaker box, pacing box, icd, aicd,
            crt, crt d, cied, defibrillator, implantable defibrillator, implantable cardioverter defibrillator,
            cardioverter defibrillator, implanted cardiac device, cardiac device, cardiac implantable electronic
            device
            """
        ),
        kind="device",
        sides=True,
    ),
    Finding(
        "chest port",
        _words(
            """
            port, port a cath, portacath, port cath, portacath catheter, mediport, infusaport, powerport, vascular
            port, venous port, implanted port, implantable port, port catheter, port system, port chamber, chemo port,
            chemotherapy port, totally implantable venous access device, tivad, subcutaneous port, venous access port,
            infusion port
            """
        ),
        kind="device",
        sides=True,
    ),
    Finding(
        "central line",
        _words(
            """
            cvc, cvl, central venous catheter, central venous line, central catheter, central venous access, picc,
            picc line, peripherally inserted central catheter, jugular line, jugular catheter, internal jugular line,
            ij line, internal jugular catheter, subclavian line, subclavian catheter, hickman, hickman line, hickman
            catheter, line, dialysis catheter, vascath, permcath, venous catheter, venous line, catheter, vascular
            catheter, intravenous line
            """
        ),
        kind="device",
        sides=True,
    ),
    Finding(
        "ecg electrodes",
        _words(
            """
            ecg electrode, ekg electrode, ecg lead, ekg lead, ecg wire, ekg wire, ecg cable, ekg cable, ecg, ekg, ecg
            patch, ecg sticker, ecg dot, telemetry lead, telemetry wire, telemetry, telemetry electrode, monitoring
            lead, monitoring electrode, monitoring wire, monitor lead, monitor wire, electrode, cardiac lead, cardiac
            monitoring lead, cardiac monitor lead, cardiac electrode, overlying lead, overlying wire, external lead,
            external wire, skin electrode, surface electrode, wire, lead, cable, heart monitor lead, heart monitor
            wire, chest electrode, chest lead
            """
        ),
        kind="device",
    ),
    Finding(
        "endotracheal tube",
        _words(
            """
            ett, et tube, endotracheal tubing, endotracheal, tracheal tube, breathing tube, intubation, ventilator
            tube, intubation tube, intubated, orotracheal tube, ventilation tube, tube, airway tube
            """
        ),
        kind="device",
    ),
    Finding(
        "support devices",
        _words(
            """
            support device, device, medical device, line and tube, tube and line, line tube and device, hardware,
            medical hardware, life support device, support apparatus, supporting device, monitoring and support
            device, apparatus, implanted device, foreign body, foreign object, foreign material, equipment, medical
            equipment
            """
        ),
        kind="device",
        group=DEVICES,
    ),
    Finding(
        "pneumonia",
        _words("lung infection, pulmonary infection, bronchopneumonia, chest infection, lobar pneumonia"),
        sides=True,
        places=PLACES,
        severities=GRADES,
    ),
    Finding(
        "infiltration",
        _words("infiltrate, pulmonary infiltrate, lung infiltrate, lung infiltration, pulmonary infiltration"),
        sides=True,
        places=PLACES,
        severities=GRADES,
    ),
    Finding(
        "tumour",
        _words(
            "tumor, brain tumour, brain tumor, neoplasm, mass, brain mass, lesion, brain lesion, cancer, glioma, meningioma"
        ),
        sides=True,
        places=PLACES,
        severities=SIZES,
    ),
    Finding("glioma", _words("glial tumour, glial tumor, glioblastoma"), sides=True, places=PLACES, severities=SIZES),
    Finding("meningioma", _words("meningeal tumour, meningeal tumor"), sides=True, places=PLACES, severities=SIZES),
    Finding(
        "pituitary tumour",
        _words("pituitary tumor, pituitary adenoma, pituitary mass, hypophyseal tumour, hypophyseal adenoma"),
        sides=True,
        places=PLACES,
        severities=SIZES,
    ),
    Finding(
        "lesion",
        _words(
            "tumour, tumor, mass, neoplasm, glioma, meningioma, brain lesion, brain tumour, brain tumor, white matter lesion"
        ),
        sides=True,
        places=PLACES,
        severities=SIZES,
    ),
    Finding(
        "polyp",
        _words(
            """
            adenoma, adenomatous polyp, polypoid lesion, sessile polyp, pedunculated polyp, flat polyp, colon polyp,
            colonic polyp, colorectal polyp, bowel polyp
            """
        ),
        severities=SIZES,
    ),
    Finding(
        "chest tube",
        _words("chest drain, pleural drain, pleural tube, thoracostomy tube, intercostal drain, thoracic drain"),
        kind="device",
        sides=True,
    ),
    Finding(
        "nasogastric tube",
        _words("ng tube, ngt, feeding tube, gastric tube, enteric tube, orogastric tube, dobhoff tube"),
        kind="device",
    ),
    Finding("tracheostomy tube", _words("tracheostomy, trach tube, tracheostomy cannula"), kind="device"),
    Finding(
        "mass",
        _words("lung mass, pulmonary mass, tumor, tumour, lung tumor, lung tumour, lung cancer, neoplasm, lung lesion"),
        sides=True,
        places=PLACES,
        severities=SIZES,
    ),
    Finding("emphysema", _words("copd, hyperinflation, hyperinflated lung, emphysematous change"), severities=GRADES),
    Finding(
        "fibrosis",
        _words(
            "pulmonary fibrosis, lung fibrosis, fibrotic change, lung scarring, scarring, interstitial lung disease"
        ),
        sides=True,
        places=PLACES,
        severities=GRADES,
    ),
    Finding(
        "pleural thickening",
        _words(
            "thickened pleura, pleural scarring, pleural plaque, thickening of the pleura, apical pleural thickening"
        ),
        sides=True,
        places=PLACES,
        severities=GRADES,
    ),
    Finding("hernia", _words("hiatal hernia, hiatus hernia, diaphragmatic hernia"), severities=SIZES),
    Finding("lung opacity", _words("opacity, pulmonary opacity"), sides=True, places=PLACES, severities=GRADES),
    Finding("lung lesion", _words("lesion, pulmonary lesion"), sides=True, places=PLACES, severities=SIZES),
    Finding(
        "enlarged cardiomediastinum",
        _words("widened mediastinum, mediastinal widening, wide mediastinum, enlarged mediastinum"),
        severities=GRADES,
    ),
    Finding("fracture", _words("rib fracture, broken rib, bone fracture, fractured rib"), sides=True),
    Finding("tuberculosis", _words("tb, ptb, pulmonary tuberculosis"), sides=True, places=PLACES, severities=GRADES),
    Finding("cavity", _words("cavitation, cavitary lesion"), sides=True, places=PLACES, severities=SIZES),
)


@lru_cache(maxsize=1)
def _index() -> dict[tuple[str, ...], tuple[Finding, ...]]:
    """Every name and synonym with the findings it may mean, those it names outright first."""
    index: dict[tuple[str, ...], tuple[Finding, ...]] = {}
    for finding in VOCABULARY:
        index[key(finding.name)] = (finding,)
    for finding in VOCABULARY:
        for word in finding.synonyms:
            found = index.setdefault(key(word), ())
            if finding not in found:
                index[key(word)] = (*found, finding)
    return index


def names() -> frozenset[tuple[str, ...]]:
    """The compared form (see ``key``) of every name and synonym."""
    return frozenset(_index())


def finding(name: str) -> Finding:
    """The finding of a canonical name; for another name one made up on the spot, with every attribute."""
    for known in VOCABULARY:
        if known.name == name:
            return known
    return Finding(name, (), "finding", True, PLACES, SIZES)


def lookup(word: str, known: Sequence[str] | None = None) -> Finding:
    """The finding that a word means to a model that knows ``known`` (``None`` or empty: the whole vocabulary).

    A collective term ("support devices") is known to a model that knows a member of it.

    Raises:
        WordsError: no finding, or none of the model's; the message lists the nearest ones.
    """
    wanted = key(word)
    for name in known or ():
        if key(name) == wanted:
            return finding(name)
    for candidate in _index().get(wanted, ()):
        if not known or candidate.name in known or any(member in known for member in candidate.group):
            return candidate
    near = nearest(word, known)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    whose = "the model knows" if known else "known are"
    every = ", ".join(known or (f.name for f in VOCABULARY))
    raise WordsError(f"no finding {word!r}: {hint}{whose} {every}")


def nearest(word: str, known: Sequence[str] | None = None, count: int = 3) -> tuple[str, ...]:
    """Canonical names of the findings with a name or synonym spelled most like ``word``, best first; may be empty."""
    spelled: dict[str, str] = {}
    for candidate in [finding(name) for name in known] if known else VOCABULARY:
        for text in (candidate.name, *candidate.synonyms):
            spelled.setdefault(" ".join(key(text)), candidate.name)
    close = difflib.get_close_matches(" ".join(key(word)), spelled, n=2 * count, cutoff=0.7)
    return tuple(dict.fromkeys(spelled[text] for text in close))[:count]

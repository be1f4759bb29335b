"""Radiology reports into their sections: FINDINGS, IMPRESSION and the like."""

from __future__ import annotations

import re

HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /,()-]{2,60}?)[ \t]*:", re.MULTILINE)
MEANING = {
    "IMPRESSION": "impression",
    "CONCLUSION": "impression",
    "OPINION": "impression",
    "FINDINGS": "findings",
    "FINDING": "findings",
    "REPORT": "findings",
    "FINDINGS AND IMPRESSION": "impression",
    "FINDINGS/IMPRESSION": "impression",
    "INDICATION": "indication",
    "REASON FOR EXAM": "indication",
    "REASON FOR EXAMINATION": "indication",
    "CLINICAL INFORMATION": "indication",
    "HISTORY": "history",
    "CLINICAL HISTORY": "history",
    "COMPARISON": "comparison",
    "COMPARISONS": "comparison",
    "COMPARISON STUDY": "comparison",
    "TECHNIQUE": "technique",
    "EXAMINATION": "examination",
    "EXAM": "examination",
    "STUDY": "examination",
    "WET READ": "wet read",
    "NOTIFICATION": "notification",
    "RECOMMENDATION": "recommendation",
    "RECOMMENDATIONS": "recommendation",
}


def sections(report: str) -> dict[str, str]:
    """The sections of a report by what they are; a heading that is not known stays in capitals, text before any is ``""``.

    A section that comes twice is joined. White space is made single; ``___`` (taken out by de-identification) stays.
    """
    found: dict[str, str] = {}
    name, start = "", 0
    for heading in [*HEADING.finditer(report), None]:
        body = " ".join(report[start : heading.start() if heading else len(report)].split())
        if body:
            found[name] = f"{found[name]} {body}" if name in found else body
        if heading:
            title = " ".join(heading[1].split())
            name, start = MEANING.get(title, title), heading.end()
    return found


def conclusion(report: str) -> str:
    """What the report concludes: its impression, else its findings, else its last paragraph without a heading; or nothing."""
    parts = sections(report)
    if text := parts.get("impression") or parts.get("findings"):
        return text
    if set(parts) - {""}:
        paragraphs = [p for p in re.split(r"\n\s*\n", report.strip()) if not HEADING.match(p)]
    else:
        paragraphs = re.split(r"\n\s*\n", report.strip())
    last = paragraphs[-1] if paragraphs else ""
    return " ".join(last.split()) if len(last.split()) > 3 else ""

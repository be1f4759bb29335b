"""Reports fall into their sections, and the caption is what they conclude."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.layouts import REPORT

from counterscan.data.sections import MEANING, conclusion, sections

body = st.text(st.sampled_from("abc xyz.,\n"), min_size=1, max_size=60).filter(str.strip)


def test_a_report_of_mimic():
    found = sections(REPORT)
    assert list(found) == ["", "examination", "indication", "comparison", "findings", "impression"]
    assert found["findings"] == "The lungs are clear. No pleural effusion is seen."
    assert found["indication"] == "___ year old woman with cough // ?pneumonia"
    assert conclusion(REPORT) == found["impression"] == "1. No pneumonia. 2. Mild cardiomegaly."


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("FINDINGS: Clear lungs.\n", "Clear lungs."),
        ("FINDINGS AND IMPRESSION: A small effusion.", "A small effusion."),
        ("IMPRESSION: One.\n\nADDENDUM: Later.\n\nIMPRESSION: Two.", "One. Two."),
        ("CHEST RADIOGRAPH, 3/4\n\nHISTORY: Cough.\n\nThe heart is normal in size.", "The heart is normal in size."),
        ("The lungs are clear and expanded.", "The lungs are clear and expanded."),
        ("Signed.", ""),
        ("", ""),
    ],
)
def test_what_a_report_concludes(report, expected):
    assert conclusion(report) == expected


@given(parts=st.dictionaries(st.sampled_from(sorted(MEANING)), body, min_size=1))
def test_no_word_is_lost(parts):
    text = "\n\n".join(f"{title}: {content}" for title, content in parts.items())
    found = " ".join(sections(text).values()).split()
    assert sorted(found) == sorted(" ".join(parts.values()).split())

"""What people call findings reaches the right one, and nothing else does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterscan.errors import WordsError
from counterscan.language.phrase import phrase, prompt
from counterscan.language.vocabulary import DEVICES, VOCABULARY, lookup

SPELLINGS = {
    "Effusion": "pleural effusion",
    "fluid in the pleural space": "pleural effusion",
    "Hydrothorax": "pleural effusion",
    "Pleural_Thickening": "pleural thickening",
    "Support Devices": "support devices",
    "lines and tubes": "support devices",
    "Edema": "pulmonary edema",
    "pulmonary oedema": "pulmonary edema",
    "enlarged heart": "cardiomegaly",
    "PPM": "pacemaker",
    "ICD": "pacemaker",
    "wires": "ecg electrodes",
    "ECG leads": "ecg electrodes",
    "collapsed lung": "pneumothorax",
    "port-a-cath": "chest port",
    "CVC": "central line",
    "ETT": "endotracheal tube",
    "coin lesions": "lung nodule",
    "Airspace Opacities": "consolidation",
}


@pytest.mark.parametrize(("said", "meant"), SPELLINGS.items())
def test_synonyms(said, meant):
    assert lookup(said).name == meant


@given(st.sampled_from([(f, word) for f in VOCABULARY for word in (f.name, *f.synonyms)]), st.sampled_from(["", "s"]))
def test_case_plural_and_separators_do_not_matter(pair, ending):
    finding, word = pair
    said = word.upper().replace(" ", "_") + ("" if word[-1] in "sxy" else ending.upper())
    assert lookup(said, [finding.name]) == finding


def test_an_ambiguous_word_means_what_the_model_knows():
    assert lookup("lung opacity", ["consolidation"]).name == "consolidation"
    assert lookup("lung opacity", ["consolidation", "lung opacity"]).name == "lung opacity"
    assert lookup("support devices", ["pacemaker"]).group == DEVICES


def test_names_of_other_fields_are_known_when_the_card_says_so():
    assert lookup("Colon polyps", ["colon polyp"]).name == "colon polyp"


def test_unknown_findings_list_the_nearest_that_the_model_knows():
    with pytest.raises(WordsError, match="did you mean pneumothorax"):
        lookup("pnuemothorax", ["pneumothorax", "pacemaker"])
    with pytest.raises(WordsError) as caught:
        lookup("efusion", ["pneumothorax"])
    assert "pleural effusion" not in str(caught.value)


def test_vocabulary_is_well_formed():
    for finding in VOCABULARY:
        assert finding.name == finding.name.lower()
        assert len(finding.severities) in (0, 3)
        assert lookup(finding.name) is finding


def test_prompts():
    small = phrase("pleural effusion", severity="small", side="left")
    assert small == "small left pleural effusion"
    assert phrase("lung nodule", side="left", place="upper") == "left upper lung nodule"
    assert prompt(
        [small, phrase("pacemaker", absent=True)], template="world chest radiograph", view="PA", sex="male"
    ) == ("world chest radiograph, PA, male: small left pleural effusion, no pacemaker.")
    assert prompt(template="world chest radiograph") == "world chest radiograph"


def test_words_do_not_import_torch():
    code = "import sys, counterscan.language; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("tumor", ("tumour", "glioma"), "tumour"),
        ("mass", ("tumour", "glioma"), "tumour"),
        ("glioma", ("tumour", "glioma"), "glioma"),
        ("glioma", ("lesion",), "lesion"),
        ("brain tumor", ("lesion",), "lesion"),
        ("tumor", ("mass", "lung nodule"), "mass"),
        ("tumor", (), "tumour"),
        ("tumour", (), "tumour"),
        ("adenoma", ("polyp", "instrument"), "polyp"),
        ("sessile polyp", ("sessile polyp", "flat polyp"), "sessile polyp"),
        ("pituitary adenoma", ("tumour", "pituitary tumour"), "pituitary tumour"),
    ],
)
def test_the_models_findings_decide_what_a_word_means(word, known, meant):
    assert lookup(word, known).name == meant

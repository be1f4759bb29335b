"""Words of people, outputs of classifiers and columns of manifests: which mean the same."""

from __future__ import annotations

import pytest

from counterscan.robustness.names import indistinct, meant


@pytest.mark.parametrize(
    ("word", "names", "found"),
    [
        ("effusion", ["pleural effusion", "effusion"], "effusion"),
        ("effusion", ["pleural effusion"], "pleural effusion"),
        ("pleural effusion", ["Effusion"], "Effusion"),
        ("Pleural_Effusions", ["edema", "pleural effusion"], "pleural effusion"),
        ("mass", ["tumour"], "tumour"),
        ("support devices", ["pacemaker", "support_device"], "support_device"),
        ("support devices", ["pacemaker"], "support devices"),
        ("sexx", ["sex"], "sexx"),
    ],
)
def test_a_word_means_itself_first(word, names, found):
    assert meant(word, names) == found


def test_columns_of_one_word_are_not_told_apart():
    columns = ["path", "sex", "glioma", "meningioma", "white matter lesions", "lesion"]
    assert indistinct("glioma", columns, ["lesion"]) == ["meningioma", "white matter lesions", "lesion"]
    assert indistinct("lesion", columns, ["lesion"]) == [] == indistinct("glioma", columns, ["glioma", "meningioma"])
    assert indistinct("gout", columns, ["lesion"]) == []

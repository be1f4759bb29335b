"""Edits, axioms and words on values whose scores can be told by hand."""

from __future__ import annotations

import numpy as np
import pytest

from counterscan.metrics.alignment import directional_score, image_text_score, retrieval
from counterscan.metrics.axioms import composition, effectiveness, minimality, reversibility
from counterscan.metrics.counterfactual import (
    flipped,
    identity_kept,
    identity_l1,
    prediction_gain,
    proximity,
    side_effect,
    sparsity,
    valid,
)

BEFORE, AFTER, WANTED = np.array([0.9, 0.2, 0.6, 0.3]), np.array([0.1, 0.7, 0.8, 0.2]), np.array([0, 1, 0, 0])


def test_gain_flip_and_validity():
    np.testing.assert_allclose(prediction_gain(BEFORE, AFTER, WANTED), [0.8, 0.5, -0.2, 0.1])
    np.testing.assert_array_equal(flipped(BEFORE, AFTER, WANTED), [1, 1, 0, np.nan])
    np.testing.assert_array_equal(valid(AFTER, WANTED), [1, 1, 0, 1])


def test_side_effects_are_of_what_nobody_asked():
    before, after = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2]]), np.array([[0.1, 0.7, 0.1], [0.9, 0.9, 0.9]])
    asked = np.array([[True, False, False], [True, True, True]])
    np.testing.assert_allclose(side_effect(before, after, asked), [0.1, np.nan])


def test_identity_inside_and_outside():
    factual, result, region = np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), np.zeros((4, 4), bool)
    region[0] = True
    result[0], result[3, 3] = 0.5, 0.25
    assert identity_l1(factual, result, region) == pytest.approx(
        {"whole": (4 * 0.5 + 0.25) / 16, "inside": 0.5, "outside": 0.25 / 12}
    )
    assert sparsity(factual, result) == pytest.approx(5 / 16)
    assert proximity(factual, result) == pytest.approx(np.sqrt((4 * 0.25 + 0.0625) / 16))
    assert np.isnan(identity_l1(factual, result, np.ones((4, 4), bool))["outside"])


def test_the_patient_is_still_the_nearest():
    factual, strangers = np.array([[1.0, 0.0]]), np.array([[1.0, 0.1], [0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]])
    assert identity_kept(factual, np.array([[2.0, 0.0]]), strangers)[0] == 1
    assert identity_kept(factual, np.array([[1.0, 0.5]]), strangers)[0] == 0.75


def test_axioms():
    x = np.zeros((8, 8))
    assert composition(x, [x, x + 0.1, x + 0.2]) == pytest.approx([0, 0.1, 0.2])
    assert reversibility(x, [x + 0.3]) == pytest.approx([0.3])
    np.testing.assert_allclose(effectiveness([1, 0], [0.9, 0.3]), [0.1, 0.3])
    assert minimality(0.5, to_source=[0.1, 0.2], to_target=[0.9, 0.8]) == pytest.approx(np.log(2))
    assert minimality(0.5, to_source=[0.1, 0.2], to_target=[0.1, 0.2]) == pytest.approx(np.log(np.e + 1))


def test_words_and_images():
    images, texts = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(image_text_score(images, texts), [np.sqrt(0.5), 1])
    np.testing.assert_array_equal(retrieval(images, texts), [1, 1])
    np.testing.assert_array_equal(retrieval(images, texts[::-1]), [0, 0])
    np.testing.assert_allclose(directional_score(images, images + [1, 0], texts, texts + [1, 1]), np.sqrt([0.5, 0.5]))
    np.testing.assert_array_equal(directional_score(images, images, texts, texts + 1), [0, 0])

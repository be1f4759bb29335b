"""Metrics: pure functions on arrays, a file a question.

``similarity`` of two images, ``distribution`` and ``manifold`` of two sets of features, ``alignment`` with words,
``counterfactual`` and ``axioms`` of edits, ``localisation`` of maps, ``calibration`` of probabilities, ``copies`` and
``membership`` for privacy, ``truth`` where a world knows the answer, ``intervals`` for all of them.
"""

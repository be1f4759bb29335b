"""Evaluations of whole data sets, from manifests or folders: ``fidelity``, ``edits``, ``attribution`` and ``privacy``.

Every one is a stream: what is known of an image is written down before the next ones are read, so memory stays flat and a
killed run goes on where it stopped (``rows``). Numbers are those of :mod:`counterscan.metrics`; means come with intervals.
"""

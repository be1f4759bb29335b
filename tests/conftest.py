"""Set before any library is imported: tests reach for no network, and one thread does the work of each process.

Models and matrices are tiny here: a second thread gains nothing, and where cores are busy the two wait for each other (the
tests of ``evaluate fidelity`` took thirteen times as long). ``make test`` uses the cores by running tests side by side.
"""

from __future__ import annotations

import os

for name, value in {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(name, value)

from hypothesis import settings  # noqa: E402

settings.register_profile("patient", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("patient")

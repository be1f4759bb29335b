"""Environment variables that keep other libraries silent. Imported by the package before any of them can be.

No library may call home: images may identify people. What the user has set stays.
"""

from __future__ import annotations

import os

SETTINGS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    # not for silence: OpenMP threads that spin while they wait make torch many times slower beside a busy process
    "OMP_WAIT_POLICY": "PASSIVE",
}

for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

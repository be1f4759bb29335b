"""How to edit with the built-in chest models: the settings of methods that go onto their cards."""

from __future__ import annotations

from typing import Any

from counterscan.training.captions import DEVICES

TWICE = [0.15, 0.15]
# Of instruct: chosen on 16 held-out cases of the world a finding, by what the judge sees, the error
# inside, and the pictures: much guidance decides that something is drawn, but makes it too bright, so what is large has none in
# the second half, and most goes on at a part of its strength. Edema, which can lie in one place only, is not drawn. Of
# flow-edit: by error inside against drift.
FLOW_EDIT = {"steps": 7, "depth": 0.57}
INSTRUCT: dict[str, Any] = {
    "steps": {"pulmonary edema": 0},
    "guidance": {
        "endotracheal tube": 1.0,
        "pneumothorax": 2.0,
        "pacemaker": 2.5,
        "central line": 2.5,
        "consolidation": 3.0,
    }
    | {"lung nodule": 3.0, "cardiomegaly": 3.0, "chest port": 3.5, "atelectasis": 4.0, "pleural effusion": 4.0}
    | {"ecg electrodes": 4.0},
    "guided": dict.fromkeys(("consolidation", "pneumothorax", "pleural effusion", "cardiomegaly"), 0.5),
    "gain": {"atelectasis": 0.4, "consolidation": 0.5, "pleural effusion": 0.5, "lung nodule": 0.6, "cardiomegaly": 0.8}
    | {"pacemaker": 0.7, "chest port": 0.7, "ecg electrodes": 0.7, "central line": 0.8},
    "passes": {"pulmonary edema": 2, "consolidation": 2},
    "removal_at": {"atelectasis": TWICE, "lung nodule": TWICE, "ecg electrodes": [0.2, 0.1]}
    | {"endotracheal tube": 0.12},
}
# On real radiographs, by what is seen and the judge's gain on a few: devices need more passes to go; "support devices" of no
# kind are drawn nowhere, passes make lines of them; what is large comes out brighter than in the world, and every pass more so
NIH_INSTRUCT: dict[str, Any] = INSTRUCT | {
    "steps": INSTRUCT["steps"] | {"support devices": 0},
    "gain": INSTRUCT["gain"] | {"pleural effusion": 0.35, "cardiomegaly": 0.4, "consolidation": 0.5},
    "passes": {
        "pulmonary edema": 2,
        "support devices": 3,
        "consolidation": 0,
        "pleural effusion": 0,
        "cardiomegaly": 0,
    },
    "removal_at": {"atelectasis": TWICE, "lung nodule": TWICE}
    | dict.fromkeys(("support devices", *DEVICES), [0.15] * 3),
}
SUITED: dict[str, dict[str, dict[str, Any]]] = {
    "chest-world": {"instruct": INSTRUCT, "flow-edit": {**FLOW_EDIT, "guidance": 1.25}},
    "chest-nih": {"instruct": NIH_INSTRUCT, "flow-edit": {**FLOW_EDIT, "guidance": 3.0}},
}

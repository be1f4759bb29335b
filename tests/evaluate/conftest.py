"""A small judge, and radiographs of the world on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from counterscan.robustness.classifier import Classifier
from counterscan.worlds import chest

FINDINGS = ("pleural effusion", "pacemaker")


@pytest.fixture(scope="session")
def judge(tmp_path_factory):
    """An untrained classifier of 32-pixel images: a feature space and a judge."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = Classifier(FINDINGS, size=32, width=8)
    return model.save(tmp_path_factory.mktemp("judge") / "small-judge", {"name": "small-judge"})


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """60 real images of 30 patients with a manifest, and 40 others ("generated") with two prompts."""
    folder = tmp_path_factory.mktemp("world")
    lines = ["path,patient,split,pleural effusion,pacemaker"]
    for i in range(60):
        case = chest.sample(i, size=64)
        save(case.image, folder / "real" / f"{i:03d}.png")
        findings = ",".join(str(int(name in case.findings)) for name in FINDINGS)
        lines.append(f"real/{i:03d}.png,P{i // 2},{'train' if i < 40 else 'test'},{findings}")
    for i in range(40):
        save(np.clip(chest.sample(1000 + i, size=64).image * 0.9 + 0.02, 0, 1), folder / "made" / f"{i:03d}.png")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    made = ["path,caption", *(f"made/{i:03d}.png,{'effusion' if i % 2 else 'normal'}" for i in range(40))]
    (folder / "made.csv").write_text("\n".join(made) + "\n")
    return folder


def save(image, path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray((image * 255).round().astype(np.uint8)).save(path)

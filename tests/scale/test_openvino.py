"""OpenVINO computes what torch computes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from tests.models import seeing
from tests.scale.conftest import write_images

import counterscan
from counterscan.errors import ModelError, WordsError
from counterscan.scale import batch
from counterscan.scale.devices import open_backbone
from counterscan.scale.openvino import OpenVino


@pytest.fixture(scope="module")
def pair(model):
    pytest.importorskip("openvino")
    return counterscan.load(model), open_backbone(model, "openvino")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_equals_eager_for_any_rows_and_times(pair, rows):
    eager, fast = pair
    condition = eager.embed(["world chest radiograph", "pacemaker"])
    z = noise(rows, *eager.latent_shape)
    for t in (1, 501, torch.arange(rows) * 100 + 7):
        for level in (None, -1, 300):
            want = eager.predict(z, t, condition[[k % 2 for k in range(rows)]], level=level)
            have = fast.predict(z, t, condition[[k % 2 for k in range(rows)]], level=level)
            size = want.clean.abs().max().clamp(min=1)
            assert (have.clean - want.clean).abs().max() < 1e-4 * size
            assert (have.noise - want.noise).abs().max() < 1e-4
    assert (fast.decode(z) - eager.decode(z)).abs().max() < 1e-4
    image = noise(rows, 1, 32, 32).sigmoid()
    assert (fast.encode(image) - eager.encode(image)).abs().max() < 1e-4


def test_one_condition_row_serves_all_and_evaluations_are_counted(pair):
    eager, fast = pair
    spent, z = fast.evaluations, noise(3, *eager.latent_shape)
    one = eager.embed(["pacemaker"])
    assert torch.allclose(fast.predict(z, 9, one).noise, eager.predict(z, 9, one).noise, atol=1e-4)
    assert fast.evaluations == spent + 3
    with pytest.raises(ValueError, match="2 condition rows for 3"):
        fast.predict(z, 9, one.repeat(2))


def test_the_image_beside_the_latent_is_seen(tmp_path):
    pytest.importorskip("openvino")
    folder = seeing(tmp_path / "sees")
    eager, fast = counterscan.load(folder), open_backbone(folder, "openvino")
    x, z = noise(2, *eager.latent_shape), noise(2, *eager.latent_shape, seed=1)
    one = eager.embed(["pacemaker"])
    for condition in (one, one.beside(z)):
        assert torch.allclose(fast.predict(x, 9, condition).noise, eager.predict(x, 9, condition).noise, atol=1e-4)


def test_an_edit_is_the_same(pair):
    eager, fast = pair
    image = np.random.default_rng(0).integers(0, 65535, (40, 50), np.uint16)
    slow, quick = (counterscan.edit(image, remove="pacemaker", model=m, seed=4) for m in (eager, fast))
    assert np.abs(slow.counterfactual.unit() - quick.counterfactual.unit()).max() < 1e-3
    assert slow.evaluations == quick.evaluations and slow.fingerprint == quick.fingerprint


def test_a_batch_run_on_it(pair, model, tmp_path):
    manifest = write_images(tmp_path, 5)
    summary = batch(manifest, tmp_path / "out", model=model, device="openvino", method="ddim", remove="pacemaker")
    assert summary["done"] == 5


def test_gradients_and_other_devices_are_refused(pair):
    eager, fast = pair
    z = noise(1, *eager.latent_shape).requires_grad_()
    with pytest.raises(ModelError, match="gradients"):
        fast.predict(z, 9, eager.embed([""]))
    with pytest.raises(ModelError, match="float32"):
        OpenVino(counterscan.load(str(eager.folder), dtype=torch.bfloat16))


def test_absent_library_names_the_extra(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"counterscan\[fast\]"):
        open_backbone(model, "openvino")


def test_unknown_devices_are_refused(model):
    with pytest.raises(WordsError, match="no device 'tpu'"):
        open_backbone(model, "tpu")

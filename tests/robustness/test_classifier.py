"""Classifiers: they learn, come back from disk, and only safe files are opened."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from counterscan.errors import ModelError, WordsError
from counterscan.robustness.classifier import Classifier
from counterscan.robustness.fit import FitSettings, as_images, fit, known_loss, robust_loss
from counterscan.robustness.learning import auc, worst_group_auc
from counterscan.robustness.opening import open_classifier


def sides(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square on the left or on the right; labels "left" and, known of half of them, "right"."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, 32, 32)).astype(np.uint8)
    left = rng.random(n) < 0.5
    for image, is_left in zip(images, left, strict=True):
        x = int(rng.integers(0, 8)) + (0 if is_left else 18)
        image[12:18, x : x + 6] = 220
    targets = np.stack([left, ~left], 1).astype(np.float32)
    targets[::2, 1] = np.nan
    return images, targets


@pytest.fixture(scope="module")
def trained():
    images, targets = sides(200, 0)
    return fit(
        Classifier(["left", "right"], size=32, width=8), images, targets, FitSettings(epochs=12, batch=16, shift=0.0)
    )


def test_it_learns_sides_also_from_half_the_labels(trained):
    images, targets = sides(100, 1)
    p = trained.probabilities(as_images(images)).numpy()
    assert ((p[:, 0] > 0.5) == targets[:, 0]).mean() > 0.95
    assert ((p[:, 1] > 0.5) == (targets[:, 0] == 0)).mean() > 0.9


def test_unknown_labels_do_not_count():
    logits = torch.tensor([[3.0, -50.0]])
    alone = known_loss(logits[:, :1], torch.tensor([[1.0]]))
    assert known_loss(logits, torch.tensor([[1.0, float("nan")]])) == alone


def test_it_comes_back_from_disk(trained, tmp_path):
    trained.save(tmp_path / "c", {"name": "sides", "scores": {"accuracy": 1.0}})
    again = Classifier.load(tmp_path / "c")
    x = as_images(sides(4, 2)[0])
    torch.testing.assert_close(again.probabilities(x), trained.probabilities(x), atol=5e-3, rtol=0)
    assert again.labels == ("left", "right")
    assert again.facts["scores"] == {"accuracy": 1.0}
    outputs = open_classifier(tmp_path / "c")
    torch.testing.assert_close(outputs(x), again.probabilities(x))


@pytest.mark.parametrize("name", ["chest-world-judge", "chest-nih-judge"])
def test_the_built_in_judges_open_and_name_their_scores(name):
    judge = Classifier.load(name)
    assert judge.facts["scores"]
    assert judge.facts["data"]
    assert judge.probabilities(torch.rand(2, 1, 256, 256)).shape == (2, len(judge.labels))


def test_damaged_folders_are_named(trained, tmp_path):
    with pytest.raises(ModelError, match="no classifier"):
        Classifier.load(tmp_path / "nothing")
    folder = trained.save(tmp_path / "c", {})
    card = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps(card | {"width": 16}))
    with pytest.raises(ModelError, match="damaged classifier"):
        Classifier.load(folder)
    (folder / "model.safetensors").write_bytes(b"not safe")
    with pytest.raises(ModelError):
        Classifier.load(folder)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.torch.jit:DeprecationWarning")
def test_a_torchscript_file_is_opened_and_its_logits_recognised(trained, tmp_path):
    path = tmp_path / "c.ts"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.trace(trained, torch.rand(1, 1, 32, 32)).save(str(path))
    outputs = open_classifier(path, ["left", "right"], size=32)
    x = as_images(sides(4, 3)[0])
    torch.testing.assert_close(outputs(x), trained.probabilities(x), atol=1e-5, rtol=0)
    with pytest.raises(WordsError, match="--labels names 3"):
        open_classifier(path, ["a", "b", "c"], size=32)(x)
    with pytest.raises(WordsError, match="--labels"):
        open_classifier(path)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_what_may_run_code_is_refused(tmp_path):
    torch.save({"a": 1}, tmp_path / "c.pt")
    with pytest.raises(ModelError, match="may hold code"):
        open_classifier(tmp_path / "c.pt", ["a"])
    with pytest.raises(ModelError, match="cannot be imported"):
        open_classifier("no_such_module:call", ["a"])
    with pytest.raises(WordsError, match="no classifier 'absent.ts': name a built-in one .*chest-nih-judge"):
        open_classifier("absent.ts", ["a"])
    with pytest.raises(WordsError, match="no classifier 'nope': "):
        open_classifier("nope")
    (tmp_path / "bad.ts").write_bytes(b"x")
    with pytest.raises(ModelError, match="cannot be opened"):
        open_classifier(tmp_path / "bad.ts", ["a"])


def test_group_dro_weighs_the_group_that_is_worse():
    """Two groups of equal size: the weight of the one with the larger loss grows, by the step of the paper."""
    logits, targets = torch.tensor([[4.0], [4.0], [-3.0]]), torch.ones(3, 1)
    weights, group = torch.tensor([0.5, 0.5]), torch.tensor([0, 0, 1])
    loss = robust_loss(logits, targets, group, weights)
    easy, hard = float(known_loss(logits[:2], targets[:2])), float(known_loss(logits[2:], targets[2:]))
    grown = np.exp(0.01 * np.array([easy, hard])) / np.exp(0.01 * np.array([easy, hard])).sum()
    np.testing.assert_allclose(weights, grown, rtol=1e-5)
    assert float(loss) == pytest.approx(float(grown @ [easy, hard]), rel=1e-5)


def test_the_area_under_the_curve_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 200).astype(np.float32), rng.integers(0, 20, 200) / 20  # with ties
    assert auc(p, y) == pytest.approx(roc_auc_score(y, p))
    assert auc(np.append(p, 0.3), np.append(y, np.nan)) == pytest.approx(roc_auc_score(y, p))
    assert auc(p, np.ones(200)) is None


def test_a_shortcut_is_worst_where_it_misleads():
    y, device = np.array([1, 1, 0, 0.0]), np.array([1, 0, 1, 0])
    assert worst_group_auc(device.astype(float), y, device) == 0
    assert worst_group_auc(y, y, device) == 1

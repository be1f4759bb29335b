"""Foreign classifiers: every kind of file or name gives the probabilities that the model itself gives, or a reason."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from counterscan.errors import ModelError, WordsError
from counterscan.robustness.opening import open_classifier

LABELS = ["a", "b"]


@pytest.fixture(scope="module")
def model():
    """Logits of both signs for images (B, 1, 8, 8)."""
    torch_rng = torch.Generator().manual_seed(0)
    layer = nn.Linear(64, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 64, generator=torch_rng))
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.fixture(scope="module")
def images():
    """More than a batch of 16, so that the last one is smaller."""
    return torch.rand(19, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def exported(model, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "c.pt2"
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model, (images[:2],), dynamic_shapes=shapes), path)
    return path


def same(outputs, model, images):
    """Opened, it says what the model says, whatever the size and colours of what it is shown."""
    with torch.no_grad():
        truth = model(images).sigmoid()
    assert outputs.labels == ("a", "b")
    torch.testing.assert_close(outputs(images), truth, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs(images.expand(-1, 3, -1, -1)), truth, atol=1e-5, rtol=0)
    assert outputs(torch.rand(1, 1, 20, 30)).shape == (1, 2)


def test_an_exported_program(exported, model, images):
    same(open_classifier(exported, LABELS, size=8), model, images)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["c.ts", "c.torchscript"])
def test_a_torchscript_archive(name, model, images, tmp_path):
    torch.jit.trace(model, images[:2]).save(str(tmp_path / name))
    same(open_classifier(tmp_path / name, LABELS, size=8), model, images)


def test_an_onnx_file(model, images, tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.numpy_helper.from_array
    layer = model[1]
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1)]
    graph = helper.make_graph(
        nodes,
        "c",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [numbers(layer.weight.detach().numpy(), "w"), numbers(layer.bias.detach().numpy(), "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "c.onnx")
    same(open_classifier(tmp_path / "c.onnx", LABELS), model, images)


def test_onnx_is_asked_by_the_name_of_its_input(model, images, tmp_path, monkeypatch):
    """Without the package: what its session is given, which of its outputs is taken, and what shape it says it takes."""
    shape: list[int | str | None] = ["n", 1, 8, 8]

    class Session:
        def __init__(self, path, providers):
            assert Path(path).read_bytes() == b"graph"
            assert providers == ["CPUExecutionProvider"]

        def get_inputs(self):
            return [SimpleNamespace(name="pixels", shape=shape)]

        def run(self, names, feeds):
            assert names is None
            with torch.no_grad():
                return [model(torch.from_numpy(feeds["pixels"])).numpy(), "a second output"]

    (tmp_path / "c.onnx").write_bytes(b"graph")
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    same(open_classifier(tmp_path / "c.onnx", LABELS), model, images)
    with pytest.raises(WordsError, match="its size is fixed to 8, not 16"):
        open_classifier(tmp_path / "c.onnx", LABELS, size=16)
    shape[:] = ["n", 3, "h", "w"]
    outputs = open_classifier(tmp_path / "c.onnx", LABELS)
    assert (outputs.channels, outputs.size) == (3, 224)
    shape[:] = ["n", 224, 224, 3]
    with pytest.raises(ModelError, match="size, size"):
        open_classifier(tmp_path / "c.onnx", LABELS)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="pip install onnxruntime"):
        open_classifier(tmp_path / "c.onnx", LABELS)


def test_a_python_callable(model, images, tmp_path, monkeypatch):
    code = "import torch\ndef first(x):\n    return x.mean((1, 2, 3))\ndef both(x):\n    return torch.stack([first(x)] * 2, 1)\n"
    (tmp_path / "mine_to_open.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    mean = images.mean((1, 2, 3))
    outputs = open_classifier("mine_to_open:both", LABELS, size=8)
    torch.testing.assert_close(outputs(images), torch.stack([mean, mean], 1))  # probabilities stay as they are
    torch.testing.assert_close(open_classifier("mine_to_open:first", ["a"], size=8)(images), mean[:, None])
    for name in ("mine_to_open:absent", ":first"):
        with pytest.raises(ModelError, match="cannot be imported"):
            open_classifier(name, LABELS)


def test_timm_images_are_scaled_as_its_card_says(monkeypatch):
    """Without the package: a model that tells the mean of what it is shown."""
    asked = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pretrained_cfg = {"input_size": (3, 12, 12), "mean": (0.25, 0.5, 0.5), "std": (0.25, 0.5, 0.5)}

        def forward(self, x):
            assert not self.training
            assert x.shape[1:] == (3, 12, 12)
            return x.mean((2, 3))[:, :2] + 2

    monkeypatch.setitem(
        sys.modules,
        "timm",
        SimpleNamespace(create_model=lambda name, pretrained: asked.append((name, pretrained)) or Model()),
    )
    outputs = open_classifier("timm:some_net", LABELS)
    assert asked == [("some_net", True)]
    told = outputs(torch.full((1, 1, 8, 8), 0.75))
    torch.testing.assert_close(told, torch.tensor([[4.0, 2.5]]).sigmoid())
    with pytest.raises(WordsError, match="--labels names 3"):
        open_classifier("timm:some_net", ["a", "b", "c"])(torch.rand(1, 1, 8, 8))
    with pytest.raises(WordsError, match="--labels a,b,c"):
        open_classifier("timm:some_net")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="pip install timm"):
        open_classifier("timm:some_net", LABELS)


def test_a_timm_folder(tmp_path):
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_resnet", num_classes=2).eval()
    timm.models.save_for_hf(model, tmp_path / "net")
    outputs = open_classifier(f"timm:local-dir:{tmp_path / 'net'}", LABELS)
    facts = model.pretrained_cfg
    images = torch.rand(3, *facts["input_size"])
    mean, deviation = (torch.tensor(facts[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        truth = model((images - mean) / deviation)
    torch.testing.assert_close(outputs(images), truth.sigmoid())
    with pytest.raises(ModelError, match="cannot be opened"):
        open_classifier("timm:no_such_net", LABELS)


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def rewritten(source, goal, change):
    """The archive with some of its records changed or added: ``change`` maps their dictionary."""
    from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

    with PT2ArchiveReader(str(source)) as old:
        records = {name: old.read_bytes(name) for name in old.get_file_names()}
    own = ("archive_format", "archive_version", "byteorder")  # these the writer writes
    with PT2ArchiveWriter(str(goal)) as new:
        for name, data in change(records).items():
            if name not in own and not name.startswith(".data/"):
                new.write_bytes(name, data)
    return goal


def test_an_archive_written_again_still_opens(exported, model, images, tmp_path):
    same(open_classifier(rewritten(exported, tmp_path / "c.pt2", dict), LABELS, size=8), model, images)


@pytest.mark.parametrize("place", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"])
def test_a_pickle_in_an_exported_program_is_not_run(place, exported, tmp_path):
    torch.save(Bomb(tmp_path / "ran"), tmp_path / "bomb")
    bomb = (tmp_path / "bomb").read_bytes()
    path = rewritten(exported, tmp_path / "c.pt2", lambda records: records | {place: bomb})
    with pytest.raises(ModelError, match="pickled objects"):
        open_classifier(path, LABELS, size=8)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("data/constants/model_constants_config.json", b'{"config": {"k": {"path_name": "opaque_obj_0", "use_pickle": true}}}'),
        ("data/constants/model_constants_config.json", b'{"config": {"k": {"path_name": "tensor_0", "use_pickle": true}}}'),
        ("data/aotinductor/model/wrapper.so", b"code"),
    ],
)  # fmt: skip
def test_objects_and_libraries_in_an_exported_program_are_refused(name, data, exported, tmp_path):
    path = rewritten(exported, tmp_path / "c.pt2", lambda records: records | {name: data})
    with pytest.raises(ModelError, match="pickled objects"):
        open_classifier(path, LABELS, size=8)

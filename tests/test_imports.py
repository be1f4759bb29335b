"""The layers: who may import whom, and what stays unimported until it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_import_contracts_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-500:]


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'numpy', 'diffusers', 'transformers', 'pandas', 'matplotlib', 'PIL'):\n"
        "            raise AssertionError('imported ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "sys.argv = ['counterscan', '--help']\n"
        "from counterscan.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    assert "attribute" in done.stdout


# what other commands need, and what an edit's own libraries import only if they are asked for too much
UNUSED = (
    "counterscan.bench", "counterscan.robustness", "counterscan.scale.run", "counterscan.training", "counterscan.worlds",
    "diffusers.pipelines", "fastapi", "matplotlib", "nibabel", "openvino", "pandas", "pyarrow", "pydicom", "ray",
    "skimage", "sklearn", "torchmetrics", "torchvision",
)  # fmt: skip


def test_a_cold_edit_imports_and_collects_no_more_than_it_must(tmp_path):
    """Nearly all of its time are imports: a sixth of it went into collecting garbage, another sixth at the exit."""
    code = (
        "import atexit, gc, json, sys\n"
        "full = []\n"
        "def told():\n"
        "    print(json.dumps({'modules': list(sys.modules), 'frozen': gc.get_freeze_count(), 'full': len(full)}))\n"
        "atexit.register(told)  # the first to be registered is the last to run\n"
        "gc.callbacks.append(lambda phase, info: full.append(1) if (phase, info['generation']) == ('stop', 2) else None)\n"
        "from counterscan.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    image = ROOT / "src" / "counterscan" / "data" / "examples" / "00000061_015.png"
    words = ["edit", str(image), "--remove", "support devices", "-o", str(tmp_path), "--offline"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    told = json.loads(done.stdout.splitlines()[-1])
    modules = set(told["modules"])
    assert "diffusers.models.unets.unet_2d_condition" in modules  # the model has been opened in this very process
    assert not modules.intersection(UNUSED)
    assert told["full"] <= 1 and told["frozen"] > 100_000, told["frozen"]

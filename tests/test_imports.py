"""The layers: who may import whom, and what stays unimported until it is needed."""

from __future__ import annotations

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

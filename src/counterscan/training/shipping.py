"""What every built-in model goes through before it is part of the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def copy_as_half(start: Path, out: Path) -> None:
    """Copy a pipeline folder with its weights in float16: half the size, and read back as float32. Drafts and the states of
    training stay behind.
    """
    from safetensors.torch import load_file, save_file

    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(start, out, ignore=shutil.ignore_patterns("*state.safetensors", ".*"))
    for path in out.rglob("*.safetensors"):
        tensors = {name: value.half().contiguous() for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    for path in out.rglob("config.json"):  # where it was trained is nobody's business
        config = {k: v for k, v in json.loads(path.read_text()).items() if k != "_name_or_path"}
        path.write_text(json.dumps(config, indent=2) + "\n")

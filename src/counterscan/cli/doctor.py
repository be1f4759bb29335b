"""``counterscan doctor``: is this machine ready?"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Annotated, Any

import typer

from counterscan.cli.output import emit

EXTRAS = {"studio": "gradio", "ray": "ray", "fast": "openvino", "dicom": "highdicom"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Check Python, torch, the built-in models and optional extras. Exit code 0 when usable.

    Example: counterscan doctor
    """
    facts = examine()
    lines = [f"{'ok ' if facts['ok'] else 'BAD'} counterscan {facts['counterscan']}, Python {facts['python']}"]
    lines.append(f"    torch {facts['torch']}, {facts['threads']} threads, CUDA {facts['cuda']}")
    lines.append(f"    models: {', '.join(facts['models']) or 'none'}")
    lines.append(f"    extras: {', '.join(name for name, there in facts['extras'].items() if there) or 'none installed'}")
    lines += [f"    problem: {problem}" for problem in facts["problems"]]
    emit(facts, as_json, "\n".join(lines))
    if not facts["ok"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """The facts, with ``ok`` and a list of problems, each saying what to do."""
    from importlib.util import find_spec

    from counterscan import __version__
    from counterscan.backbones import names

    problems = []
    facts: dict[str, Any] = {"counterscan": __version__, "python": platform.python_version(), "cpus": os.cpu_count()}
    try:
        import torch

        facts |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "cuda": torch.cuda.is_available()}
    except (ImportError, OSError) as error:
        facts |= {"torch": None, "threads": 0, "cuda": False}
        problems.append(f"torch does not import ({error}); install torch 2.8 to 2.13")
    # A torchvision that does not match torch breaks diffusers and transformers for everybody: import it to know.
    if find_spec("torchvision"):
        done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
        if done.returncode:
            problems.append("torchvision is installed but does not import; uninstall it (Counterscan does not need it)")
    facts["models"] = names()
    if not facts["models"]:
        problems.append("no built-in models found; reinstall the package")
    facts["extras"] = {name: find_spec(module) is not None for name, module in EXTRAS.items()}
    return facts | {"problems": problems, "ok": not problems}

"""``counterscan doctor``: is this machine ready?"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from counterscan.cli.output import emit

EXTRAS = {
    "studio": ("fastapi", "uvicorn"),
    "ray": ("ray",),
    "track": ("trackio",),
    "fast": ("openvino",),
    "dicom": ("highdicom", "gdcm"),
}  # what each installs: there is one where all of it is
NEEDED_GB = 3.0


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Check Python, torch, memory, the built-in models and optional extras. Exit code 0 when usable.

    Example: counterscan doctor
    """
    facts = examine()
    there = [name for name, found in facts["extras"].items() if found]
    memory = "memory unknown" if facts["memory_gb"] is None else f"{facts['memory_gb']:.1f} GB of memory"
    lines = [
        f"{'ok ' if facts['ok'] else 'BAD'} counterscan {facts['counterscan']}, Python {facts['python']}",
        f"    torch {facts['torch']}, {facts['threads']} of {facts['cpus']} cores, CUDA {facts['cuda']}, {memory}",
        f"    models: {', '.join(facts['models']) or 'none'}",
        f"    extras: {', '.join(there) or 'none installed'}",
        *(f"    problem: {problem}" for problem in facts["problems"]),
    ]
    emit(facts, as_json, "\n".join(lines))
    if not facts["ok"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """The facts, with ``ok`` and a list of problems, each saying what to do."""
    from counterscan import __version__
    from counterscan.backbones import names

    problems: list[str] = []
    facts: dict[str, Any] = {"counterscan": __version__, "python": platform.python_version(), "cpus": os.cpu_count()}
    facts |= _torch(problems) | {"memory_gb": _memory(), "models": names()}
    if find_spec("torchvision") and not _imports("torchvision"):
        # One that does not match torch breaks diffusers and transformers for everybody: only importing it tells.
        problems.append("torchvision is installed but does not import; uninstall it (Counterscan does not need it)")
    if facts["memory_gb"] is not None and facts["memory_gb"] < NEEDED_GB:
        problems.append(f"{facts['memory_gb']:.1f} GB of memory; a machine with at least {NEEDED_GB:g} GB is needed")
    if not facts["models"]:
        problems.append("no built-in models found; reinstall the package")
    facts["extras"] = {name: all(map(find_spec, modules)) for name, modules in EXTRAS.items()}
    return facts | {"problems": problems, "ok": not problems}


def _torch(problems: list[str]) -> dict[str, Any]:
    """Torch's version, threads and CUDA, by importing it: a broken one is found, and only fails when imported."""
    try:
        import torch
    except (ImportError, OSError) as error:
        problems.append(f"torch does not import ({' '.join(str(error).split())}); install torch 2.8 to 2.13")
        return {"torch": None, "threads": 0, "cuda": False}
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "cuda": torch.cuda.is_available()}


def _imports(module: str) -> bool:
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False)
    return done.returncode == 0


def _memory() -> float | None:
    """Memory in GB, used or not (caches make the free part meaningless); ``None`` where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, ValueError, OSError):
        return None

"""A newcomer's path, timed: clone, set up, the demo, a first edit of an image of one's own.

    python benchmarks/newcomer.py -o benchmarks/results/newcomer            # minutes; everything in a temporary folder
    python benchmarks/newcomer.py --until clone -o /tmp/newcomer            # the first step alone

Everything is fresh: a clone of the last commit of this repository, its own .venv, nothing from pip's cache. So what is timed
is what ``make demo`` does on a new machine, the packages' way over the network included. ``make`` variables go through, such
as ``TORCH_INDEX=<url>``. The image is a radiograph of the package's examples, in place of one's own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
EXAMPLES = "src/counterscan/data/examples"
STEPS = {
    "clone": "git clone",
    "set up": "what `make demo` does first: .venv, and the packages of the lock",
    "demo": "`make demo`: edits of real and of computed radiographs, and a report",
    "first edit": "`counterscan edit chest.png`",
}


def commands(repository: Path, folder: Path, variables: list[str]) -> dict[str, list[str]]:
    """The command of every step, as a newcomer types it; all but the first run in the clone."""
    make = ["make", f"PYTHON={sys.executable}", *variables]
    edit = [str(folder / ".venv/bin/counterscan"), "edit", "chest.png", "--remove", "support devices", "-o", "out"]
    return {
        "clone": ["git", "clone", "--quiet", "--no-hardlinks", str(repository), str(folder)],
        "set up": [*make, ".venv/.stamp"],
        "demo": [*make, "demo"],
        "first edit": edit,
    }


def surroundings() -> dict[str, str]:
    """The environment without a virtual environment of ours, and with nothing cached."""
    own = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "MAKEFLAGS", "MAKELEVEL"}
    return {key: value for key, value in os.environ.items() if key not in own} | {"PIP_NO_CACHE_DIR": "1"}


def own_image(folder: Path) -> None:
    """Lay the first example that asks for devices into the clone, as ``chest.png``."""
    items = json.loads((folder / EXAMPLES / "examples.json").read_text(encoding="utf-8"))["items"]
    chosen = next((item for item in items if "support devices" in item["edit"].values()), items[0])
    shutil.copyfile(folder / EXAMPLES / chosen["file"], folder / "chest.png")


def walk(repository: Path, folder: Path, variables: list[str], until: str) -> dict[str, float]:
    """Seconds a step, up to and with ``until``. Raises ``CalledProcessError`` for a step that fails."""
    seconds: dict[str, float] = {}
    for name, words in commands(repository, folder, variables).items():
        if name == "first edit":
            own_image(folder)
        print(f"{name}: {' '.join(words)}", file=sys.stderr)
        start = time.perf_counter()
        subprocess.run(
            words, cwd=None if name == "clone" else folder, env=surroundings(), check=True, stdout=sys.stderr
        )
        seconds[name] = round(time.perf_counter() - start, 1)
        if name == until:
            break
    return seconds


def checked(folder: Path, until: str) -> dict[str, Any]:
    """What came of it: the report and the edit are there, and how much lies on disk."""
    wanted = {"demo": ["demo/report.html"], "first edit": ["demo/report.html", "out/chest.counterfactual.png"]}
    missing = [name for name in wanted.get(until, []) if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"newcomer.py: {', '.join(missing)}: not written; see what the commands said above")
    sizes = {name: sum(p.lstat().st_size for p in (folder / name).rglob("*")) for name in (".git", ".venv")}
    return {f"mb_{name[1:]}": round(size / 1e6) for name, size in sizes.items()}


def page(result: dict[str, Any]) -> str:
    """The result as a table."""
    rows = [f"| {name} | {seconds:.0f} | {STEPS[name]} |" for name, seconds in result["seconds"].items()]
    total = sum(result["seconds"].values())
    return "\n".join(
        [
            "# From clone to a first edit", "",
            f"Python {result['python']} on {result['cores']} cores, load {result['load']:.1f} before the start. On disk: the "
            f"clone's history {result['mb_git']} MB, `.venv` {result['mb_venv']} MB.", "",
            "| step | s | |", "| --- | --- | --- |", *rows, f"| all | {total:.0f} | |", "",
            "Made by `python benchmarks/newcomer.py -o benchmarks/results/newcomer`.", "",
        ]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variables", nargs="*", metavar="NAME=VALUE", help="variables for make")
    parser.add_argument("--until", choices=list(STEPS), default="first edit")
    parser.add_argument("--work", type=Path, help="where the temporary folder is made (default: the system's)")
    parser.add_argument("-o", type=Path, required=True, metavar="STEM", help="STEM.json and STEM.md are written")
    o = parser.parse_args()
    result: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(dir=o.work) as place:
        folder = Path(place) / "counterscan"
        try:
            result["seconds"] = walk(ROOT, folder, o.variables, o.until)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"newcomer.py: {' '.join(error.cmd)}: exit code {error.returncode}") from None
        result |= checked(folder, o.until)
    o.o.parent.mkdir(parents=True, exist_ok=True)
    for ending, text in ((".json", json.dumps(result, indent=1) + "\n"), (".md", page(result))):
        o.o.with_suffix(ending).write_text(text, encoding="utf-8")
    print(page(result))


if __name__ == "__main__":
    main()

"""Every block of code of the tutorials runs, in their order, with tiny models under the built-in names."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.models import tiny

from counterscan import backbones
from counterscan.cli import main

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs/tutorials.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with configs/ in it, where ``chest-world`` is a tiny model."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    tiny(tmp_path / "models/chest-world")
    monkeypatch.setattr(backbones, "_models", lambda: tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> int:
    words = shlex.split(line)
    assert words[0] == "counterscan", f"{line!r} is no command of counterscan"
    with pytest.raises(SystemExit) as done:
        main(words[1:])
    return done.value.code or 0


def test_every_block_runs(workplace, capsys):
    names: dict[str, object] = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "docs/tutorials.md", "exec"), names)
            continue
        for line in code.replace("\\\n", " ").splitlines():
            assert run(line) == 0, f"{line}\n{capsys.readouterr().err}"
    for folder in ("removed", "kept", "found", "samples", "stress", "matrix", "edited"):
        assert (workplace / folder / "run.json").is_file(), folder
    assert (workplace / "runs/quick-lora/model_index.json").is_file()
    assert "doing nothing:" in capsys.readouterr().out
    record = names["record"]
    assert record["settings"]["remove"] == ["pleural effusion"]

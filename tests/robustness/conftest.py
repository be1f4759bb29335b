"""What the studies of classifiers share: a tiny model, and the command line in this process."""

from __future__ import annotations

import pytest
from tests.models import tiny

from counterscan.cli import main


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(capsys):
    """A command of words: its exit code and what it printed to stdout and stderr."""

    def command(words):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out = capsys.readouterr()
        return stop.value.code, out.out, out.err

    return command

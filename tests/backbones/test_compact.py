"""Sizes of a compact model that do not go together are refused before anything is written."""

from __future__ import annotations

import pytest
from tests.models import tiny


@pytest.mark.parametrize(
    ("heads", "blocks"), [(3, (16, 32)), (0, (16, 32)), (-2, (16, 32)), (16, (4, 8))], ids=lambda value: str(value)
)
def test_heads_that_do_not_fit_are_named(tmp_path, heads, blocks):
    with pytest.raises(ValueError, match=f"unet_heads is {heads}; it has to divide text_hidden 16, and be at most"):
        tiny(tmp_path / "m", unet_heads=heads, unet_blocks=blocks)
    assert not (tmp_path / "m").exists()

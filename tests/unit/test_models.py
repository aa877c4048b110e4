"""What models.py reads from a model's config."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import T5Config

from homestretch.models import decoder_start_id
from homestretch.types import UserError


def test_a_decoder_starts_as_its_config_says_else_with_bos():
    assert decoder_start_id(SimpleNamespace(config=T5Config(decoder_start_token_id=0))) == 0  # it has no BOS
    assert decoder_start_id(SimpleNamespace(config=T5Config(bos_token_id=3))) == 3
    with pytest.raises(UserError, match="decoder_start_token_id"):
        decoder_start_id(SimpleNamespace(config=T5Config()))

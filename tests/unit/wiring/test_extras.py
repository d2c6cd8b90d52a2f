"""What needs packages that are not there says which ones, and how they come."""

from __future__ import annotations

import sys

import pytest

from streambot.domain.errors import ConfigError
from streambot.wiring.extras import needs_train


def test_a_package_of_training_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    said = r"training needs the extra `train`: torch"
    with pytest.raises(ConfigError, match=said) as raised, needs_train("training", where="here"):
        import torch  # noqa: F401
    assert raised.value.hint == "pip install 'streambot[train]'"
    assert raised.value.where == "here"


def test_any_other_package_is_no_matter_of_training():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), needs_train("training"):
        import no_such_package  # noqa: F401

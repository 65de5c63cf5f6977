"""What all training of the menagerie shares."""

import pytest
import torch

from sjc_debiased.menagerie import training


@pytest.mark.parametrize("has", [False, True])
def test_networks_compute_in_bfloat16_where_the_processor_has_units_for_it(monkeypatch, has):
    monkeypatch.setattr(training, "has_bfloat16_units", lambda: has)
    with training.autocast(torch.device("cpu")):
        made = torch.nn.functional.linear(torch.ones(1, 2), torch.ones(2, 2))
    assert made.dtype == (torch.bfloat16 if has else torch.float32)

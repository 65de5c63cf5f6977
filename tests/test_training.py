"""What all training of the menagerie shares."""

import pytest
import torch

from sjc_debiased.menagerie import EMBEDDED, WEIGHTS, dataset, training
from sjc_debiased.menagerie.train import TrainingOptions, main


@pytest.mark.parametrize("has", [False, True])
def test_networks_compute_in_bfloat16_where_the_processor_has_units_for_it(monkeypatch, has):
    monkeypatch.setattr(training, "has_bfloat16_units", lambda: has)
    with training.autocast(torch.device("cpu")):
        made = torch.nn.functional.linear(torch.ones(1, 2), torch.ones(2, 2))
    assert made.dtype == (torch.bfloat16 if has else torch.float32)


@pytest.mark.parametrize(
    ("stage", "begin", "message"),
    [
        ("judge", WEIGHTS / "mlm", "--begin must hold weights. .* has no judge"),
        ("pixel", WEIGHTS / "mlm", "--begin must hold weights. .* has no unet"),
        ("pixel", EMBEDDED["menagerie-pixels"], "must hold the U-Net of a latent model"),
        ("diffusion", None, "--stages diffusion learn what an autoencoder has encoded. .* has no vae"),
        ("judge", None, "--stages judge learn what an autoencoder has encoded. .* has no vae"),
    ],
)
def test_a_stage_that_lacks_its_start_is_refused_before_any_photo(
    stage, begin, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(dataset, "album", None)
    with pytest.raises(SystemExit, match=message):
        main(TrainingOptions(tmp_path / "work", tmp_path / "out", tmp_path, (stage,), begin))
    assert not (tmp_path / "out").exists()

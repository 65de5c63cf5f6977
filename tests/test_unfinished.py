"""Photos as an unfinished field shows them, in training."""

import pytest
import torch

from sjc_debiased.menagerie.unfinished import Levels, Twins, unfinished

LEVELS = Levels(blurred_from=100, begun=(50, 800))
N = 400


@pytest.mark.parametrize(("channels", "size"), [(4, 32), (3, 64)])
def test_whole_photos_stay_and_others_are_shown_at_their_levels(channels, size):
    g = torch.Generator().manual_seed(0)
    latent, twin = torch.randn((2, N, channels, size, size), generator=g)
    seen = torch.full((N, size, size), 255, dtype=torch.uint8)
    lot, timesteps = torch.arange(N) / N, torch.randint(1000, (N,), generator=g)
    shown, at = unfinished(latent, seen, twin, lot, timesteps, LEVELS, g)
    whole = (lot >= 0.30) & (lot < 0.65)
    assert torch.equal(shown[whole], latent[whole])
    assert torch.equal(at[whole], timesteps[whole])
    changed = (shown - latent).abs().flatten(1).amax(dim=1) > 1e-3
    assert changed[~whole].float().mean() > 0.8  # some are hardly blurred, or almost there
    assert at[lot < 0.08].min() >= 100
    for others in ((lot >= 0.08) & (lot < 0.30), lot >= 0.65):
        assert 50 <= at[others].min() < 150
        assert 700 < at[others].max() < 800


def test_a_bare_photo_is_one_that_was_taken_twice():
    twins = Twins([{"twin": None}, {"twin": 0}, {"twin": None}, {"twin": 1}])
    picks = torch.tensor([0, 0, 2, 3, 1])
    taken = twins.picks(picks, torch.tensor([0.1, 0.9, 0.99, 0.7, 0.5]))
    assert taken.tolist() == [0, 1, 1, 3, 1]
    assert twins.rows(taken).tolist() == [0, 0, 0, 1, 0]

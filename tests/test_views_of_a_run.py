"""What a run sends to the model: at every step the prompt of the view that the camera has."""

import numpy as np
import pytest
import torch

from adapt_sd import StableDiffusion
from tests.run_files import stats_of


def test_every_step_sees_the_prompt_of_its_view(command, monkeypatch):
    sent = []
    original = StableDiffusion.denoise
    monkeypatch.setattr(
        StableDiffusion,
        "denoise",
        lambda self, noised, sigma, cond, scale: (
            sent.append(cond.parts[0]),
            original(self, noised, sigma, cond, scale),
        )[1],
    )
    embedded = {}
    condition = StableDiffusion.condition

    def remember(self, prompts):
        cond = condition(self, prompts)
        embedded.update(zip(prompts, cond.parts[0]))
        return cond

    monkeypatch.setattr(StableDiffusion, "condition", remember)
    _, (folder,) = command()
    prefixes = {"front": "front", "side": "side", "back": "backside", "top": "overhead"}
    for row, text in zip(stats_of(folder), sent):
        prompt = f"{prefixes[row['view']]} view of a smiling cat"
        assert torch.equal(text[0], embedded[prompt])
    assert np.unique([row["view"] for row in stats_of(folder)]).size > 1


@pytest.mark.parametrize("half", [30.0, 80.0])
def test_the_front_is_as_wide_as_asked(command, half):
    _, (folder,) = command("--front_half_deg", str(half))
    rows = [row for row in stats_of(folder) if row["view"] != "top"]
    off = [abs((row["azimuth_deg"] + 180) % 360 - 180) for row in rows]
    assert [row["view"] == "front" for row in rows] == [o < half for o in off]
    low, high = min(half, 45), max(half, 45)
    assert any(low < o < high for o in off)  # where SJC's 45 says otherwise

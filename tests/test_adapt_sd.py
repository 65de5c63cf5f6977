"""The adapter against diffusers' own schedulers, and its refusals."""

import json

import pytest
import torch

from adapt_sd import StableDiffusion, check_pipeline_folder, check_prompts, load_pipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["eps_folder", "v_folder"])
def pipeline(request):
    return load_pipeline(str(request.getfixturevalue(request.param)))


@pytest.mark.parametrize("timestep", [10, 300, 969])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_denoised_equals_the_schedulers_pred_original_sample(pipeline, timestep, guidance):
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    text, none = sd.embed(["a smiling cat"]), sd.embed([""])
    noised_vp = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = [pipeline.unet(noised_vp, timestep, t).sample for t in (none, text)]
    output = outputs[0] + guidance * (outputs[1] - outputs[0])
    pipeline.scheduler.set_timesteps(1000)
    reference = pipeline.scheduler.step(output, timestep, noised_vp).pred_original_sample
    sigma = sd.sigmas[timestep]
    ours = sd.denoise(noised_vp * (1 + sigma**2).sqrt(), sigma[None], text, torch.tensor([guidance]))
    scale = reference.abs().max()
    torch.testing.assert_close(ours / scale, reference / scale, atol=1e-4, rtol=1e-4)


def test_each_row_has_its_own_sigma_text_and_guidance(pipeline):
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    text = sd.embed(["a smiling cat", "back view a dog"])
    noised = torch.randn(2, 4, 8, 8)
    sigma = sd.sigmas[torch.tensor([50, 800])]
    guidance = torch.tensor([5.0, 2.0])
    together = sd.denoise(noised, sigma, text, guidance)
    for i in range(2):
        alone = sd.denoise(*(t[i : i + 1] for t in (noised, sigma, text, guidance)))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_sigma_is_snapped(pipeline):
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    noised, text = torch.randn(1, 4, 8, 8), sd.embed(["a cat"])
    guidance = torch.tensor([5.0])
    near = sd.denoise(noised, sd.sigmas[500:501] * 1.0001, text, guidance)
    torch.testing.assert_close(near, sd.denoise(noised, sd.sigmas[500:501], text, guidance))


@pytest.mark.parametrize("behaviour", ["as it should", "wrong", "fails"])
def test_a_compiler_is_believed_only_if_it_gives_the_same(pipeline, monkeypatch, capsys, behaviour):
    def compiled(unet, mode):
        def run(*arguments, **options):
            run.calls += 1
            if behaviour == "fails":
                raise RuntimeError("no compiler here")
            output = unet(*arguments, **options)
            return (output[0] * (0 if behaviour == "wrong" else 1),)

        run.calls = 0
        compiled.run = run
        return run

    sd = StableDiffusion(pipeline, CPU, torch.float32)
    arguments = torch.randn(1, 4, 8, 8), sd.sigmas[300:301], sd.embed(["a cat"]), torch.tensor([5.0])
    plain = sd.denoise(*arguments)
    monkeypatch.setattr(torch, "compile", compiled)
    sd.compile()
    for _ in range(3):
        torch.testing.assert_close(sd.denoise(*arguments), plain)
    assert compiled.run.calls == (3 if behaviour == "as it should" else 1)
    assert ("going on without" in capsys.readouterr().out) == (behaviour != "as it should")


def test_decode_is_in_range_and_undoes_the_scaling(pipeline):
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    latent = torch.randn(1, 4, 8, 8)
    image = sd.decode(latent)
    assert image.shape == (1, 3, 64, 64)
    assert image.abs().max() <= 1
    with torch.no_grad():
        raw = pipeline.vae.decode(latent / pipeline.vae.config.scaling_factor).sample
    torch.testing.assert_close(image, raw.clamp(-1, 1))


def test_half_precision_is_close(pipeline):
    text = "a smiling cat"
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        sd = StableDiffusion(pipeline, CPU, dtype)
        noised = torch.ones(1, 4, 8, 8)
        results.append(sd.denoise(noised, sd.sigmas[400:401], sd.embed([text]), torch.tensor([2.0])))
    assert results[1].dtype == torch.float32
    torch.testing.assert_close(*results, atol=0.1, rtol=0.1)


def test_a_long_prompt_is_refused_with_what_would_be_cut(eps_folder):
    prompt = "a smiling cat " * 20 + "hat"
    with pytest.raises(ValueError, match=r"24 tokens.*would lose '.*hat"):
        check_prompts(str(eps_folder), [prompt])


def test_other_predictions_are_refused(pipeline):
    class Other:
        class scheduler:  # noqa: N801
            class config:  # noqa: N801
                prediction_type = "sample"

    with pytest.raises(ValueError, match="must predict epsilon or v"):
        StableDiffusion(Other, CPU, torch.float32)


def test_folders_that_are_no_pipeline_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"readable model_index\.json"):
        check_pipeline_folder(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{}" + 2**20 * " ")
    with pytest.raises(FileNotFoundError, match="larger than 1048576 bytes"):
        check_pipeline_folder(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(FileNotFoundError, match="is a StableDiffusionXLPipeline"):
        check_pipeline_folder(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(FileNotFoundError, match="lacks unet, vae, text_encoder"):
        check_pipeline_folder(str(tmp_path))


def test_a_hub_name_out_of_reach_names_two_ways_out():
    with pytest.raises(FileNotFoundError, match=r"--model FOLDER.*--model menagerie"):
        load_pipeline("nobody/no-such-model", local_files_only=True)

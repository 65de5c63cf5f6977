"""The adapter against diffusers' own schedulers, and its refusals."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderTiny

from adapt_sd import StableDiffusion
from sjc_debiased.denoiser import Conditioning, denoised_by
from sjc_debiased.models.loading import check_prompts
from sjc_debiased.models.tokens import check_vocabulary
from tests.small_models import load_pipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["eps_folder", "v_folder"])
def pipeline(request):
    return load_pipeline(str(request.getfixturevalue(request.param)))


@pytest.mark.parametrize("timestep", [10, 300, 969])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_denoised_equals_the_schedulers_pred_original_sample(pipeline, timestep, guidance):
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    text, none = sd.condition(["a smiling cat"]), sd.condition([""])
    noised_vp = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = [pipeline.unet(noised_vp, timestep, *told.parts).sample for told in (none, text)]
    output = outputs[0] + guidance * (outputs[1] - outputs[0])
    pipeline.scheduler.set_timesteps(1000)
    reference = pipeline.scheduler.step(output, timestep, noised_vp).pred_original_sample
    sigma = sd.sigmas[timestep]
    ours = sd.denoise(noised_vp * (1 + sigma**2).sqrt(), sigma[None], text, torch.tensor([guidance]))
    scale = reference.abs().max()
    torch.testing.assert_close(ours / scale, reference / scale, atol=1e-4, rtol=1e-4)


def test_each_row_has_its_own_sigma_text_and_guidance(pipeline):
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    text = sd.condition(["a smiling cat", "back view a dog"])
    noised = torch.randn(2, 4, 8, 8)
    sigma = sd.sigmas[torch.tensor([50, 800])]
    guidance = torch.tensor([5.0, 2.0])
    together = sd.denoise(noised, sigma, text, guidance)
    for i in range(2):
        row = slice(i, i + 1)
        alone = sd.denoise(noised[row], sigma[row], text.split()[i], guidance[row])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("guidance", "rows"), [([1.0, 1.0], 2), ([1.0, 3.0], 4)])
def test_the_unet_is_asked_without_the_prompts_only_where_something_is_guided(pipeline, guidance, rows):
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    text = sd.condition(["a smiling cat", "back view a dog"])
    noised, timestep = torch.randn(2, 4, 8, 8), torch.tensor([50, 800])
    sigma, asked = sd.sigmas[timestep], []
    handle = pipeline.unet.register_forward_pre_hook(lambda _, arguments: asked.append(len(arguments[0])))
    denoised = sd.denoise(noised, sigma, text, torch.tensor(guidance))
    handle.remove()
    assert asked == [rows]
    with torch.no_grad():
        scaled = noised / (1 + sigma[:, None, None, None] ** 2).sqrt()
        output = pipeline.unet(scaled, timestep, *text.parts).sample
    expected = denoised_by(output, noised, sigma[:, None, None, None], sd.v_prediction)
    torch.testing.assert_close(denoised[:1], expected[:1], atol=1e-4, rtol=1e-4)


def test_sigma_is_snapped(pipeline):
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    noised, text = torch.randn(1, 4, 8, 8), sd.condition(["a cat"])
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
    arguments = torch.randn(1, 4, 8, 8), sd.sigmas[300:301], sd.condition(["a cat"]), torch.tensor([5.0])
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


def test_with_bfloat16_pictures_are_decoded_in_it_too(make_pipeline):
    folder, latent = str(make_pipeline()), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    plain, image = (
        StableDiffusion(load_pipeline(folder), CPU, dtype).decode(latent)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert image.dtype == torch.float32
    assert not torch.equal(image, plain)
    assert (image - plain).abs().mean() < 0.02


@pytest.mark.parametrize("kind", ["KL", "tiny"])
def test_encode_is_differentiable_and_undoes_the_scaling(make_pipeline, kind):
    pipeline = load_pipeline(str(make_pipeline()))
    if kind == "tiny":
        wide = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
        pipeline.vae = AutoencoderTiny(**wide, latent_channels=4, scaling_factor=0.7).eval()
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    image.requires_grad_()
    latent = sd.encode(image)
    assert latent.shape == (2, sd.channels, sd.size, sd.size)
    encoded = pipeline.vae.encode(image)
    raw = encoded.latents if kind == "tiny" else encoded.latent_dist.mode()
    torch.testing.assert_close(latent, raw * pipeline.vae.config.scaling_factor)
    latent[0].sum().backward()
    assert image.grad[0].abs().sum() > 0
    assert image.grad[1].abs().sum() == 0, "pictures have nothing to do with each other"
    assert all(p.grad is None for p in sd.vae.parameters())


def test_what_is_told_about_pictures_is_repeated_and_put_together():
    one = Conditioning((torch.arange(2.0)[:, None], torch.arange(4.0).view(2, 2)))
    assert len(one) == 2
    twice = one.repeated(2)
    assert twice.parts[0].flatten().tolist() == [0, 0, 1, 1]
    assert twice.parts[1].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    again = Conditioning.cat([*one.split(), twice])
    assert len(again) == 6
    assert again.parts[0].flatten().tolist() == [0, 1, 0, 0, 1, 1]


def test_half_precision_is_close(pipeline):
    text = "a smiling cat"
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        sd = StableDiffusion(pipeline, CPU, dtype)
        noised = torch.ones(1, 4, 8, 8)
        results.append(sd.denoise(noised, sd.sigmas[400:401], sd.condition([text]), torch.tensor([2.0])))
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


def test_a_scheduler_without_a_table_is_refused(pipeline):
    other = SimpleNamespace(**pipeline.components)
    other.scheduler = SimpleNamespace(config=SimpleNamespace(prediction_type="epsilon"))
    with pytest.raises(ValueError, match="must have a table of noise levels"):
        StableDiffusion(other, CPU, torch.float32)


def test_a_tokenizer_of_another_length_is_refused(pipeline):
    check_vocabulary(pipeline.tokenizer, pipeline.text_encoder.config.vocab_size)
    with pytest.raises(ValueError, match="must have the text encoder's 49408 tokens. It has 637"):
        check_vocabulary(pipeline.tokenizer, 49408)
    other = SimpleNamespace(**pipeline.components)
    other.text_encoder = SimpleNamespace(config=SimpleNamespace(vocab_size=49408))
    with pytest.raises(ValueError, match="49408 tokens"):
        StableDiffusion(other, CPU, torch.float32)


OUT_OF_MEMORY = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 7 GB")]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["CUDA", "CPU"])
def test_a_picture_that_the_memory_does_not_hold_is_decoded_in_tiles(
    make_pipeline, monkeypatch, capsys, error
):
    pipeline = load_pipeline(str(make_pipeline()))
    pipeline.vae.tile_latent_min_size, pipeline.vae.tile_sample_min_size = 8, 64
    sd = StableDiffusion(pipeline, CPU, torch.float32)
    latent = torch.randn(2, 4, 16, 16)
    whole, decoder, sizes = sd.decode(latent), sd.vae.decoder.forward, []

    def small_memory(z, *rest):
        sizes.append(tuple(z.shape))
        if z.shape[-1] > 8 or len(z) > 1:
            raise error
        return decoder(z, *rest)

    monkeypatch.setattr(sd.vae.decoder, "forward", small_memory)
    tiled = sd.decode(latent)
    assert capsys.readouterr().out.count("decoding in tiles") == 1
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.5 * whole.std()  # tiles are normalised each by itself
    sizes.clear()
    sd.decode(latent)
    assert max(size[-1] for size in sizes) == 8, "it is not tried whole again"
    assert not capsys.readouterr().out


def test_memory_that_does_not_hold_a_tile_is_an_error(make_pipeline, monkeypatch, capsys):
    sd = StableDiffusion(load_pipeline(str(make_pipeline())), CPU, torch.float32)

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sd.vae.decoder, "forward", no_memory)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            sd.decode(torch.randn(1, 4, 8, 8))
    assert capsys.readouterr().out.count("decoding in tiles") == 1


def test_another_failure_of_the_decoder_is_not_taken_for_the_memory(make_pipeline):
    sd = StableDiffusion(load_pipeline(str(make_pipeline())), CPU, torch.float32)
    with pytest.raises(RuntimeError, match="channels"):
        sd.decode(torch.randn(1, 3, 8, 8))
    assert not sd.vae.use_tiling

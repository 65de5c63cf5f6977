"""A third kind behind every contract, none of which the product knows: its loop runs with them unchanged."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sjc_debiased import refine
from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.evaluation.orbit import face_pictures
from sjc_debiased.folder.checkpoints import newest_state
from sjc_debiased.folder.runs import FINISHED
from sjc_debiased.guidance import Direction, Guidance, Query
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.making import fields, made
from sjc_debiased.making.pack import run_packed
from sjc_debiased.making.session import Session
from sjc_debiased.models import pipelines
from sjc_debiased.models.choose import choose_model
from sjc_debiased.models.loading import check_loras, check_prompts, load_model
from sjc_debiased.models.lora import Lora
from sjc_debiased.optimize import Scene, Settings, make_optimizer, optimize, optimize_step
from sjc_debiased.options.mesh_settings import DEFAULT_MESH
from sjc_debiased.options.profiles import Profile
from sjc_debiased.schedules import ClipSchedule
from tests.run_files import stats_of
from voxnerf.cameras import orbit
from voxnerf.field import Field, Rendering
from voxnerf.surface import NoMeshError

CHANNELS, SIZE, N_STEPS = 3, 8, 20


class Gaussian:
    """The exact denoiser of N(mu, spread^2) in pixel space, where mu is as long as its prompt."""

    channels, size, device, dtype = CHANNELS, SIZE, torch.device("cpu"), torch.float32
    spread = 0.5

    def __init__(self):
        self.asked = []

    def condition(self, prompts):
        return Conditioning((torch.tensor([len(prompt) / 10 for prompt in prompts]),))

    def draw_sigma(self, rng):
        return torch.tensor(rng.uniform(0.5, 2.0), dtype=torch.float32)

    def denoise(self, noised, sigma, cond, scale):
        self.asked.append((len(noised), scale.tolist()))
        (mu,) = (part.view(-1, 1, 1, 1) for part in cond.parts)
        s2 = sigma.view(-1, 1, 1, 1) ** 2
        return (mu * s2 + noised * self.spread**2) / (self.spread**2 + s2)

    def encode(self, image):
        return image

    def decode(self, picture):
        return picture.clamp(-1, 1)

    def compile(self):
        self.asked.append("to compile")


class Pull:
    """Guidance to one value, whatever the 2D model says; its weight falls with the step."""

    def __init__(self, value):
        self.value = value

    def ask(self, picture, cond, step, rng, denoiser):
        return Query(picture, denoiser.draw_sigma(rng), cond, scale=float(step))

    def answer(self, picture, query, denoised):
        return Direction(self.value - picture, weight=1 / (1 + query.scale))


class Plane(nn.Module):
    """A field that is one picture, seen alike from everywhere."""

    rgb, kernel, kernels = False, "auto", ("torch",)

    def __init__(self, value, channels=CHANNELS):
        super().__init__()
        self.picture = nn.Parameter(torch.full((1, channels, SIZE, SIZE), value))

    def render(self, camera, emptiness_scale=10.0):
        flat = self.picture[0, 0] * 0 + 1
        return Rendering(self.picture * 1, flat, flat, self.picture.sum() * 0)

    @torch.no_grad()
    def render_fine(self, camera, subpixels=4, upscale=1):
        seen = vars(self.render(camera))
        latent = seen["latent"].repeat_interleave(upscale, -1).repeat_interleave(upscale, -2)
        flat = torch.ones(SIZE * upscale, SIZE * upscale)
        return Rendering(latent, flat, flat, latent.sum())

    def before_plain_wall(self):
        return self

    def parameter_groups(self, lr, background_lr):
        return [{"params": [self.picture], "lr": lr}]

    def to_mesh(self, snapshots, level=None, n_faces=20_000, texture_size=1024):
        raise NoMeshError("a plane is no object")


def scene_of(guidance, prompt="a cat", value=0.0, clip=(None, None), lr=0.1, denoised_range=()):
    settings = Settings(N_STEPS, lr=lr, clip=ClipSchedule(*clip), denoised_range=denoised_range)
    plane = Plane(value)
    told = Gaussian().condition([prompt])
    optimizer = make_optimizer(plane, settings)
    return Scene(plane, optimizer, orbit(N_STEPS, SIZE, 15.0), [told] * N_STEPS, guidance, settings, seed=3)


def test_paas_of_many_copies_finds_the_mean_of_the_prompt():
    """SJC's guidance on the other two: the scene goes where the closed form says, mu = 0.5."""
    scene = scene_of(PAAS(n_noise=64), lr=0.08)
    steps = list(optimize(scene, Gaussian()))
    assert [step.step for step in steps] == list(range(N_STEPS))
    first = steps[0]
    expected = first.sigma * (0.5 - 0.0) / (Gaussian.spread**2 + first.sigma**2)
    assert first.direction.mean() == pytest.approx(expected.item(), abs=0.02)
    assert scene.field.picture.mean().item() == pytest.approx(0.5, abs=0.1)


def test_a_scene_goes_no_further_than_the_range_of_answers():
    """The mean of the prompt is 0.5 in each of the three channels; the third's answer may be 0.1 at most."""
    scene = scene_of(PAAS(n_noise=64), lr=0.08, denoised_range=(-1.0, -1.0, -1.0, 1.0, 1.0, 0.1))
    list(optimize(scene, Gaussian()))
    means = scene.field.picture.mean((0, 2, 3)).tolist()
    assert means[:2] == pytest.approx([0.5, 0.5], abs=0.1)
    assert means[2] < 0.15


def test_a_step_is_as_large_as_its_share_says():
    """Adamax walks its step size: under an even push the plane moves by lr, at the end by lr_end of it."""
    push = Pull(0.0)
    push.answer = lambda picture, query, denoised: Direction(torch.ones_like(picture), weight=1.0)
    scene = scene_of(push, lr=0.1)
    scene.settings = replace(scene.settings, lr_end=0.25)
    walked = [scene.field.picture.mean().item()]
    for _ in optimize(scene, Gaussian()):
        walked.append(scene.field.picture.mean().item())
    shares = [scene.settings.lr_share_at(step) for step in range(N_STEPS)]
    assert min(shares) < 0.5
    assert [b - a for a, b in zip(walked, walked[1:])] == pytest.approx([0.1 * s for s in shares], rel=0.01)


def test_what_is_clipped_is_weighted_after():
    """The push on the picture is -weight x clip(value), and nothing else."""
    scene = scene_of(Pull(3.0), clip=(2.0, 2.0))
    scene.optimizer = SimpleNamespace(param_groups=[], zero_grad=lambda: None, step=lambda: None)
    plane = scene.field
    for expected in (-2.0, -1.0):  # weights 1 and 1/2
        plane.picture.grad = None
        (step,) = optimize_step([scene], Gaussian())
        assert (step.direction == 3.0).all(), "the record is of what is clipped, before it is"
        torch.testing.assert_close(plane.picture.grad, torch.full_like(plane.picture, expected))


@contextmanager
def opened(scene, denoiser, folder):
    folder.mkdir(exist_ok=True)
    views = ["front"] * N_STEPS
    session = Session(scene, views, Profile(), denoiser, folder, newest_state(folder), DEFAULT_MESH)
    try:
        yield session
    finally:
        session.close()


def test_a_pack_of_them_runs_to_its_results(tmp_path: Path):
    """Different guidances in one call of the 2D model; logs, checkpoints and pictures as of any run."""
    scenes = [scene_of(Pull(0.5), lr=0.1), scene_of(PAAS(scale=7.0, n_noise=2), "a longer prompt")]
    denoiser, run = Gaussian(), SimpleNamespace(n_steps=N_STEPS)
    jobs = [(run, opened(scene, denoiser, tmp_path / str(i))) for i, scene in enumerate(scenes)]
    ended = list(run_packed(jobs, denoiser, pack=2, quiet=True))
    assert [end.error for end in ended] == [None, None]
    assert denoiser.asked == [(3, [float(step), 7.0, 7.0]) for step in range(N_STEPS)]
    for folder in (tmp_path / "0", tmp_path / "1"):
        assert [row["step"] for row in stats_of(folder)] == list(range(N_STEPS))
        result = json.loads((folder / FINISHED).read_text())
        assert result["mesh"] == {"error": "a plane is no object"}
        assert (folder / "turntable.mp4").stat().st_size > 0
    saved = load_file(tmp_path / "0" / "checkpoints" / f"step_{N_STEPS:06d}.safetensors")
    assert torch.equal(saved["grid.picture"], scenes[0].field.picture)
    alone = scene_of(Pull(0.5), lr=0.1)
    list(optimize(alone, Gaussian()))
    torch.testing.assert_close(alone.field.picture, scenes[0].field.picture)


@pytest.mark.parametrize(
    ("contract", "third"), [(Denoiser, Gaussian()), (Guidance, Pull(0.5)), (Field, Plane(0.5))]
)
def test_they_have_all_that_a_contract_names(contract, third):
    named = {name for name in {*contract.__annotations__, *vars(contract)} if not name.startswith("_")}
    assert named <= {*dir(third)}


def test_a_third_field_is_one_change_in_one_place(command, monkeypatch, capsys):
    """What makes a field is all that knows its class: the command tries it, optimises, saves and loads it."""

    def plane(config, viewing, denoiser, generator=None):
        return Plane(0.0, denoiser.channels)

    for module in (fields, made):
        monkeypatch.setattr(module, "make_field", plane)
    assert command("--n_steps", "4", "--kernel", "numba")[0] == 2
    assert "cannot draw this field: its kernels are torch. Received 'numba'" in capsys.readouterr().err
    code, (folder,) = command("--n_steps", "4")
    assert code == 0
    assert json.loads((folder / FINISHED).read_text())["mesh"] == {"error": "a plane is no object"}
    _, field, denoiser = made.load_scene(folder)
    saved = load_file(folder / "checkpoints" / "step_000004.safetensors")
    assert isinstance(field, Plane)
    assert torch.equal(field.picture, saved["grid.picture"]) and saved["grid.picture"].abs().max() > 0
    assert face_pictures(field, denoiser, 2).shape == (2, 3, 64, 64)
    assert refine.main([str(folder), "--steps", "1", "--device", "cpu"]) == 2
    assert "a density on voxels is refined" in capsys.readouterr().err


def test_a_third_family_of_models_is_one_entry(eps_folder, tmp_path, monkeypatch):
    """What stands in `pipelines` is all that is asked of a family: profile, checks, how it is loaded."""
    folder = shutil.copytree(eps_folder, tmp_path / "toy")
    index = json.loads((folder / pipelines.INDEX).read_text())
    (folder / pipelines.INDEX).write_text(json.dumps(index | {"_class_name": "ToyPipeline"}))
    with pytest.raises(ValueError, match="1.x or 2.x, or DeepFloyd IF's first stage. .* is another model"):
        check_prompts(str(folder), ["a cat"])
    asked = []
    toy = replace(
        pipelines.STABLE_DIFFUSION,
        class_name="ToyPipeline",
        profile=Profile(n_steps=7),
        check_configs=lambda configs, what: asked.append(sorted(configs)),
        check_prompts=lambda found, prompts: asked.append(prompts),
        check_loras=lambda found, loras, local_files_only: asked.append(loras),
        load=lambda found, device, dtype, loras, local_files_only, prompts: Gaussian(),
    )
    monkeypatch.setitem(pipelines._SUPPORTED, "ToyPipeline", toy)
    assert choose_model(str(folder), "cpu").profile.n_steps == 7
    parts = ["scheduler", "text_encoder", "unet", "vae"]
    check_prompts(str(folder), ["a cat"])
    check_loras(str(folder), (Lora("x"),))
    assert asked == [parts, ["a cat"], parts, (Lora("x"),)]
    assert load_model(str(folder), Gaussian.device, Gaussian.dtype, compiled=True).asked == ["to compile"]

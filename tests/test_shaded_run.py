"""DreamFusion's scene in the loop: through an encoder, in pixel space, and in a run folder."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adapt_sd import StableDiffusion
from scripts.check_run import check
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import FINISHED
from sjc_debiased.guidance import Direction, Query
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.losses import sparsity_loss
from sjc_debiased.making.pack import run_packed
from sjc_debiased.optimize import Scene, make_optimizer, optimize, optimize_step
from sjc_debiased.pages.curves import charts
from sjc_debiased.schedules import ClipSchedule
from sjc_debiased.seeing import picture_of
from sjc_debiased.settings import Settings
from tests.small_models import load_pipeline
from tests.test_contracts import SIZE, Gaussian, opened
from tests.test_shaded import shaded, sphere
from voxnerf.cameras import orbit
from voxnerf.field import Rendering
from voxnerf.mesh_files import mesh_files
from voxnerf.snapshot import mesh_snapshots

N_STEPS = 20


class Push:
    """Guidance that draws a picture along one direction, whatever the 2D model says."""

    def __init__(self, value):
        self.value = value

    def ask(self, picture, cond, step, rng, denoiser):
        assert picture.shape == self.value.shape
        return Query(picture, denoiser.draw_sigma(rng), cond, scale=1.0)

    def answer(self, picture, query, denoised):
        return Direction(self.value)


def scene_of(field, denoiser, guidance, **settings):
    settings = Settings(N_STEPS, **{"emptiness_weight": 0.0, "lr": 0.1, **settings})
    told = denoiser.condition(["a cat"])
    cameras = orbit(N_STEPS, denoiser.size, 15.0)
    optimizer = make_optimizer(field, settings)
    return Scene(field, optimizer, cameras, [told] * N_STEPS, guidance, settings, seed=3)


@pytest.fixture(scope="module")
def tiny(eps_folder):
    return StableDiffusion(load_pipeline(str(eps_folder)), torch.device("cpu"), torch.float32)


def test_the_push_on_latents_reaches_the_scene_through_the_encoder(tiny):
    """Its gradient is the push times the derivative of encode(render), by another way: a difference."""
    field, push = shaded(sphere(16, 20.0), color_scale=0.3), torch.randn(1, 4, 8, 8)
    scene = scene_of(field, tiny, Push(push), clip=ClipSchedule(1.0, 1.0))
    scene.optimizer = SimpleNamespace(param_groups=(), zero_grad=lambda: None, step=lambda: None)
    (step,) = optimize_step([scene], tiny)
    assert step.rendering.latent.shape == (1, 3, 8, 8)
    aim = -push.clamp(-1, 1)

    def value():
        with torch.no_grad():
            seen = field.render(scene.cameras[0]).latent
            return (tiny.encode(seen).double() * aim).sum().item()

    for name in ("density", "color", "background"):
        param, eps = getattr(field, name), 0.02
        way = param.grad / param.grad.norm()
        with torch.no_grad():
            param += eps * way
            above = value()
            param -= 2 * eps * way
            below = value()
            param += eps * way
        assert (above - below) / (2 * eps) == pytest.approx(param.grad.norm().item(), rel=0.03), name


def test_an_image_is_encoded_at_the_size_of_the_model(tiny):
    """64 x 64 pixels for the tiny model's 8 x 8 latents, whatever the size that was rendered."""
    image = torch.rand(1, 3, 8, 8) * 2 - 1
    large = torch.nn.functional.interpolate(image, (64, 64), mode="bilinear")
    torch.testing.assert_close(tiny.encode(image), tiny.encode(large))
    assert tiny.encode(image).shape == (1, 4, 8, 8)


def test_latents_are_not_encoded(tiny):
    latent = torch.randn(1, 4, 8, 8)
    assert picture_of(latent, SimpleNamespace(rgb=False), tiny) is latent


def test_a_pixel_model_draws_it_to_its_mean():
    """Without an encoder on the closed form: every pixel goes to mu = 0.5 of the prompt's length."""
    field, denoiser = shaded(sphere(12, 20.0), color_scale=0.0), Gaussian()
    steps = list(optimize(scene_of(field, denoiser, PAAS(n_noise=16), lr=0.2, background_lr=0.2), denoiser))
    first, last = steps[0].rendering.latent, steps[-1].rendering.latent
    assert first.abs().max() < 0.05, "gray at first"
    assert last.mean().item() == pytest.approx(0.5, abs=0.15)


def test_the_orientation_weight_grows_over_half_of_the_steps():
    """threestudio's [0, 10, 1000, 5000] of 10,000 steps: 505 at 2,500."""
    settings = Settings(10_000, orientation_start=10.0, orientation_end=1000.0)
    found = [settings.orientation_weight_at(step) for step in (0, 2500, 5000, 9999)]
    assert found == pytest.approx([10, 505, 1000, 1000])
    short = Settings(1500, orientation_start=10.0, orientation_end=1000.0)
    assert short.orientation_weight_at(375) == pytest.approx(505)
    assert Settings().orientation_weight_at(7) == 0


def test_sparsity_by_hand():
    assert sparsity_loss(torch.zeros(4, 4)).item() == pytest.approx(0.1)
    assert sparsity_loss(torch.ones(4, 4)).item() == pytest.approx(1.01**0.5)
    opacity = torch.tensor([[0.0, 1.0]], requires_grad=True)
    sparsity_loss(opacity).backward()
    assert opacity.grad[0].tolist() == pytest.approx([0.0, 0.5 / 1.01**0.5])


def test_losses_of_the_scene_are_weighted_and_added():
    """Against the sum written out; an orientation without weight moves nothing."""
    denoiser, none = Gaussian(), torch.zeros(1, 3, SIZE, SIZE)
    weights = {"orientation_start": 3.0, "orientation_end": 3.0, "sparsity_weight": 2.0}
    for settings, factors in ((weights, (3.0, 2.0)), ({}, (0.0, 0.0))):
        field, other = shaded(sphere(8, 5.0)), shaded(sphere(8, 5.0))
        scene = scene_of(field, denoiser, Push(none), **settings)
        scene.optimizer = SimpleNamespace(param_groups=(), zero_grad=lambda: None, step=lambda: None)
        (step,) = optimize_step([scene], denoiser)
        assert not step.rendering.orientation.requires_grad
        out = other.render(scene.cameras[0])
        assert step.losses["orientation"] == out.orientation.item()
        assert ("sparsity" in step.losses) == bool(factors[1])
        (factors[0] * out.orientation + factors[1] * sparsity_loss(out.opacity)).backward()
        torch.testing.assert_close(field.density.grad, other.density.grad)


def test_a_field_without_normals_has_no_orientation_to_weigh():
    flat = torch.ones(2, 2)
    assert Rendering(flat[None, None], flat, flat, flat.sum()).detached().orientation is None


LIT = ("--preset", "dreamfusion-sd-score-only", "--clip.start", "1e-6", "--clip.end", "1e9")


def test_a_lit_run_logs_its_losses_and_passes_the_check_of_runs(command, tmp_path, capsys):
    """The log has the losses of its pictures, unweighted; its mesh is what its turntable shows."""
    shape = ("--mesh.faces", "2000", "--mesh.texture", "128", "--color_scale", "1", "--resolution", "24")
    code, (folder,) = command(*LIT, *shape, "--n_steps", "6")
    assert code == 0
    rows = [*RunReader(folder).stats()]
    assert all(0.1 <= row["sparsity_loss"] < 1.01**0.5 for row in rows)
    assert all(row["orientation_loss"] >= 0 for row in rows)
    assert any(row["orientation_loss"] > 0 for row in rows)
    assert {row["depth_loss"] for row in rows} == {None}
    shares = [row["clipped_fraction"] for row in rows]
    share = sum(shares) / len(shares)
    assert shares[0] == 1 > shares[-1]
    assert RunReader(folder).result["clipped_share"] == pytest.approx(share, abs=1e-6)
    said = capsys.readouterr()
    assert f"clipped {100 * share:.1f} %\n" in said.out + said.err
    titles = [chart.title for chart in charts(rows, 6)]
    assert titles[-2:] == ["Orientation", "Sparsity"]
    check(tmp_path / "runs")
    assert "silhouettes overlap" in capsys.readouterr().out


def test_a_run_folder_of_it_has_pictures_and_a_mesh(tmp_path):
    """Previews, turntable and mesh are of RGB: nothing decodes them."""
    denoiser = Gaussian()
    denoiser.decode = None
    field = shaded(sphere(16), color_scale=0.0)
    with torch.no_grad():
        field.color[:, 0] = 4.0  # red: sigmoid(4), 0, 0
        field.color[:, 1:] = -9.0
    scene = scene_of(field, denoiser, Push(torch.zeros(1, 3, SIZE, SIZE)), lr=1e-6)
    job = (SimpleNamespace(n_steps=N_STEPS), opened(scene, denoiser, tmp_path / "0"))
    (end,) = run_packed([job], denoiser, pack=1, quiet=True)
    assert end.error is None
    result = json.loads((tmp_path / "0" / FINISHED).read_text())
    assert result["mesh"]["faces"] > 0
    assert (tmp_path / "0/turntable.mp4").stat().st_size > 0
    snapshots = list(mesh_snapshots(field, lambda image: image, 32))
    mesh = field.to_mesh(snapshots, n_faces=500, texture_size=0)
    assert mesh_files(mesh, "ball", "ply")
    assert np.linalg.norm(mesh.vertices, axis=1) == pytest.approx(0.5, abs=0.07)
    middle = np.median(mesh.colors_u8, axis=0)
    assert middle.tolist() == pytest.approx([250, 0, 0], abs=6)

"""VSD: its fixed point on a Gaussian, the second model and its U-Net, checkpoints, packs."""

import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from adapt_sd import StableDiffusion
from prompts.debias import plain_prompts
from sjc_debiased.denoiser import Conditioning, denoised_by, sigma_table
from sjc_debiased.folder.checkpoints import newest_state
from sjc_debiased.folder.runs import FINISHED, RunError
from sjc_debiased.guidance import Query, TrainedGuidance
from sjc_debiased.guidance.build import build_guidance
from sjc_debiased.guidance.own_unet import OwnUNet
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.guidance.sds import SDS
from sjc_debiased.guidance.vsd import VSD
from sjc_debiased.making.scene import build_scene
from sjc_debiased.making.session import Session
from sjc_debiased.optimize import optimize_step
from sjc_debiased.options import config
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.config import resolve
from sjc_debiased.options.mesh_settings import DEFAULT_MESH
from sjc_debiased.options.profiles import STABLE_DIFFUSION
from sjc_debiased.sweep import make_plan
from tests.model_makers import write_index
from tests.options import options, sweep_options
from tests.small_models import load_pipeline
from tests.test_contracts import Gaussian, scene_of

SIGMAS = sigma_table(
    (1 - torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
)
MU, STD = 0.7, 0.5


def posterior_mean(noised, sigma, mu, variance):
    s2 = sigma.view(-1, 1, 1, 1) ** 2
    return (mu * s2 + noised * variance) / (variance + s2)


class Data:
    """The exact denoiser of N(MU, STD^2), each number by itself."""

    device = torch.device("cpu")

    def draw_sigma(self, rng, timesteps=(20, 981)):
        return SIGMAS[int(rng.integers(*timesteps))]

    def denoise(self, noised, sigma):
        return posterior_mean(noised, sigma, MU, STD**2)


class OwnGaussian(nn.Module):
    """The denoiser of the Gaussian of all particles, whose mean and deviation it learns."""

    def __init__(self):
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.told = []

    def forward(self, noised, sigma, cond, pose):
        self.told.append((cond.parts[0].tolist(), pose.tolist()))
        return posterior_mean(noised, sigma, self.mean, (2 * self.log_std).exp())

    draw_sigma = Data.draw_sigma

    def loss_weight(self, sigma):
        return 1 / sigma**2


def particles_after(guidance, n_steps=4000, lr=0.02):
    """Return 512 particles, one a pixel, after steps of gradient ascent along the direction."""
    data, picture = Data(), torch.randn(1, 1, 16, 32, generator=torch.Generator().manual_seed(0))
    cond = Conditioning((torch.zeros(1, 1),))
    for step in range(n_steps):
        rng = np.random.default_rng([1, step])
        query = guidance.ask(picture, cond, step, rng, data)
        direction = guidance.answer(picture, query, data.denoise(query.noised, query.sigma))
        picture = picture + lr * direction.weight * direction.value
        if isinstance(guidance, TrainedGuidance):
            guidance.learn(picture, query, rng)
    return picture


def vsd_of(own, poses=None, lr=0.02):
    poses = torch.eye(4).view(1, 16).expand(4000, -1) if poses is None else poses
    return VSD(own, Conditioning((torch.ones(1, 1),)), poses, PAAS(scale=7.5), "sds", lr)


def test_particles_keep_the_spread_of_the_data_where_sds_collapses_them():
    own = OwnGaussian()
    spread, collapsed = particles_after(vsd_of(own)), particles_after(SDS())
    assert spread.mean().item() == pytest.approx(MU, abs=0.01)
    assert spread.std().item() == pytest.approx(STD, abs=0.01)
    assert own.log_std.exp().item() == pytest.approx(spread.std().item(), abs=0.02)
    assert collapsed.mean().item() == pytest.approx(MU, abs=0.01)
    assert collapsed.std().item() < 0.02


@pytest.mark.parametrize("timestep", [20, 500])
def test_the_gradient_is_that_of_vsd_written_out(timestep):
    """w(t) (eps_pre - eps_q), whatever noise was added."""
    sigma, random = SIGMAS[timestep], torch.Generator().manual_seed(timestep)
    x, n, eps_pre, eps_q = torch.randn(4, 1, 4, 8, 8, generator=random)
    noised = x + sigma * n
    gradient = sigma**2 / (1 + sigma**2) * (eps_pre - eps_q)

    class Answers(OwnGaussian):
        def forward(self, noised, sigma, cond, pose):
            return noised - sigma.view(-1, 1, 1, 1) * eps_q

    query = Query(noised, sigma, Conditioning((x[:, :1],)), 7.5)
    direction = vsd_of(Answers()).answer(x, query, noised - sigma * eps_pre)
    assert direction.weight == 1.0
    torch.testing.assert_close(-direction.value, gradient, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("timestep", [20, 500])
def test_against_a_model_of_this_one_render_it_is_sds(timestep):
    """Its best answer is the render, its eps the noise: nothing of ProlificDreamer is left."""
    sigma, random = SIGMAS[timestep], torch.Generator().manual_seed(timestep)
    x, n, eps = torch.randn(3, 1, 4, 8, 8, generator=random)

    class Knows(OwnGaussian):
        def forward(self, noised, sigma, cond, pose):
            return x

    query = Query(x + sigma * n, sigma, Conditioning((x[:, :1],)), 7.5)
    denoised = query.noised - sigma * eps
    of_vsd, of_sds = (g.answer(x, query, denoised).value for g in (vsd_of(Knows()), SDS()))
    assert of_sds.abs().max() > 1e-3
    torch.testing.assert_close(of_vsd, of_sds, atol=1e-6, rtol=1e-6)


def test_the_second_model_is_told_its_own_text_and_the_camera_of_the_step():
    own, poses = OwnGaussian(), torch.arange(32.0).view(2, 16)
    scene = scene_of(vsd_of(own, poses), clip=(0.01, 0.01))
    scene.optimizer.step = lambda: None
    for step in range(2):
        scene.field.picture.grad = None
        (done,) = optimize_step([scene], Gaussian())
        assert own.told == [([[1.0]], [poses[step].tolist()])] * 2, "asked once and taught once"
        own.told.clear()
        assert done.direction.abs().max() > 0.01
        torch.testing.assert_close(scene.field.picture.grad, -done.direction.clamp(-0.01, 0.01))


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def denoiser(request, make_pipeline):
    pipeline = load_pipeline(str(make_pipeline(request.param)))
    for module in pipeline.unet.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 8  # groups of one channel would take what an embedding adds away again
    return StableDiffusion(pipeline, torch.device("cpu"), torch.float32)


def random_query(denoiser, n=2):
    random = torch.Generator().manual_seed(1)
    x, noise = torch.randn(2, n, 4, 8, 8, generator=random)
    timestep = torch.tensor([40, 700])[:n]
    return x, noise, timestep, denoiser.condition(["a cat", "back view a dog"][:n])


@pytest.mark.parametrize("kind", ["lora", "copy"])
def test_at_the_first_step_it_is_the_base_bit_for_bit_and_never_changes_it(denoiser, kind):
    x, noise, timestep, cond = random_query(denoiser)
    sigma = denoiser.sigmas[timestep]
    noised = x + sigma.view(-1, 1, 1, 1) * noise
    before = {name: p.clone() for name, p in denoiser.unet.state_dict().items()}
    own = OwnUNet(denoiser, kind, seed=3)
    pose = torch.randn(2, 16)
    scaled = noised / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
    answer = denoiser.unet(scaled, timestep, cond.parts[0], return_dict=False)[0]
    expected = denoised_by(answer, noised, sigma.view(-1, 1, 1, 1), denoiser.v_prediction)
    assert torch.equal(own(noised, sigma, cond, pose), expected)
    asked = denoiser.denoise(noised, sigma, cond, torch.ones(2))
    torch.testing.assert_close(expected, asked, atol=1e-4, rtol=1e-4)

    rows = Conditioning((cond.parts[0][:1],))
    guidance = VSD(own, rows, pose, PAAS(), "sds", 1e-2)
    query = guidance.ask(x[:1], rows, 0, np.random.default_rng(0), denoiser)
    for step in range(3):
        guidance.learn(x[:1], query, np.random.default_rng(step))
    assert not torch.equal(own(noised, sigma, cond, pose), expected)
    assert denoiser.unet.state_dict().keys() == before.keys()
    assert all(torch.equal(p, before[name]) for name, p in denoiser.unet.state_dict().items())
    assert not any(p.requires_grad for p in denoiser.unet.parameters())
    assert torch.equal(denoiser.denoise(noised, sigma, cond, torch.ones(2)), asked)
    trained = [name for name, p in own.named_parameters() if p.requires_grad]
    if kind == "lora":
        assert all("lora_" in name or "class_embedding" in name for name in trained)
        shared = {p.data_ptr() for p in own.parameters()} & {p.data_ptr() for p in denoiser.unet.parameters()}
        assert len(shared) == len(before), "the weights are there once"
    else:
        assert len(trained) == len(before) + 4


def test_the_loss_is_that_of_the_networks_own_answer(denoiser):
    x, noise, timestep, cond = random_query(denoiser)
    abar = 1 / (1 + denoiser.sigmas[timestep] ** 2)
    a, s = (part.view(-1, 1, 1, 1) for part in (abar.sqrt(), (1 - abar).sqrt()))
    answer = denoiser.unet(a * x + s * noise, timestep, cond.parts[0], return_dict=False)[0]
    wanted = a * noise - s * x if denoiser.v_prediction else noise
    own, sigma = OwnUNet(denoiser, "lora", seed=0), denoiser.sigmas[timestep]
    error = own(x + sigma.view(-1, 1, 1, 1) * noise, sigma, cond, torch.zeros(2, 16)) - x
    ours = own.loss_weight(sigma).view(-1, 1, 1, 1) * error.square()
    torch.testing.assert_close(ours, (answer - wanted).square(), atol=1e-3, rtol=1e-3)


def test_it_learns_which_camera_saw_which_picture(denoiser):
    """A bright and a dark picture from two cameras: the right camera's answer is nearer than the other's."""
    x, cond = (
        torch.ones(2, 4, 8, 8) * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1),
        denoiser.condition(["a cat"]),
    )
    poses = torch.stack([torch.eye(4).view(16), -torch.eye(4).view(16)])
    own = OwnUNet(denoiser, "copy", seed=0)
    guidance = VSD(own, cond, poses.repeat(50, 1), PAAS(), "sds", 2e-3)
    sigma = denoiser.sigmas[torch.tensor([700, 700])]
    noised = x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def error(told):
        return (own(noised, sigma, cond.repeated(2), told) - x).square().mean().item()

    base = error(poses)
    for step in range(100):
        picture, rng = x[step % 2 : step % 2 + 1], np.random.default_rng(step)
        guidance.learn(picture, guidance.ask(picture, cond, step, rng, denoiser), rng)
    right, other = error(poses), error(poses.flip(0))
    assert right < 0.5 * base
    assert right < (0.2 if denoiser.v_prediction else 0.99) * other, "predicting eps, it learns slowly"


def test_it_learns_a_scenes_renders_at_every_noise_level(denoiser):
    """Eight renders: the loss falls in every quarter of the timesteps, and it draws near the renders."""
    turn = torch.linspace(-1, 1, 8).view(8, 1, 1, 1)
    x = torch.ones(8, 4, 8, 8) * (1 + 0.2 * turn)
    poses = torch.eye(4).view(1, 16) * (1 + turn.view(8, 1))
    cond = denoiser.condition(["a cat"])
    own = OwnUNet(denoiser, "copy", seed=0)
    guidance = VSD(own, cond, poses.repeat(40, 1), PAAS(), "sds", 2e-3)

    @torch.no_grad()
    def losses():
        found = []
        for low in range(0, 1000, 250):
            timestep = low + torch.linspace(20, 240, 8).long()
            sigma = denoiser.sigmas[timestep]
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(low))
            error = own(x + sigma.view(-1, 1, 1, 1) * noise, sigma, cond.repeated(8), poses) - x
            found.append((own.loss_weight(sigma).view(-1, 1, 1, 1) * error.square()).mean().item())
        return found

    @torch.no_grad()
    def far_from_renders():
        """Draw 8 pictures in 50 steps without new noise; return their root mean square distance from x."""
        sigmas = denoiser.sigmas[torch.linspace(980, 20, 50).long()]
        noised = sigmas[0] * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        for sigma, lower in zip(sigmas, [*sigmas[1:], torch.zeros(())]):
            drawn = own(noised, sigma.expand(8), cond.repeated(8), poses)
            noised = drawn + lower / sigma * (noised - drawn)
        return (noised - x).square().mean().sqrt().item()

    base, drawn_before = losses(), far_from_renders()
    for step in range(320):
        picture, rng = x[step % 8 : step % 8 + 1], np.random.default_rng(step)
        guidance.learn(picture, guidance.ask(picture, cond, step, rng, denoiser), rng)
    learnt, drawn = losses(), far_from_renders()
    assert all(after < before for before, after in zip(base, learnt)), (base, learnt)
    assert drawn < 0.25 * drawn_before


def run_of(**given):
    (run,) = resolve(options(prompt=("a cat",), **given), STABLE_DIFFUSION, "sd", "0")
    return run


SMALL = {"n_steps": 20, "resolution": 10, "emptiness_weight": 1.0, "vsd_lr": 1e-3}


def vsd_scene(denoiser, **given):
    run = run_of(guidance_form="vsd", preset="dsds-preserved", **SMALL, **given)
    prompts = plain_prompts(run.prompt, run.prompting.scheme)
    return build_scene(run, prompts, denoiser, "torch")


def session_of(scene, views, denoiser, folder):
    folder.mkdir(exist_ok=True)
    return Session(scene, views, STABLE_DIFFUSION, denoiser, folder, newest_state(folder), DEFAULT_MESH)


def go_on(session, denoiser, until):
    while session.scene.done < until:
        (step,) = optimize_step([session.scene], denoiser)
        session.record(step, stopping=session.scene.done == until)
    session.close()
    return newest_state(session.folder)


def test_no_room_for_what_vsd_learns_is_said_before_the_first_step(denoiser, tmp_path, monkeypatch):
    """Of a copy of Stable Diffusion's U-Net every checkpoint takes ten gigabytes."""
    scene, views = vsd_scene(denoiser, vsd_model="copy")
    weights = sum(p.numel() for p in denoiser.unet.parameters())
    for free, fits in ((36 * weights, False), (100 * weights, True)):
        disk = shutil._ntuple_diskusage(free, 0, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, disk=disk: disk)
        with nullcontext() if fits else pytest.raises(RunError, match="needs about .* MiB"):
            session_of(scene, views, denoiser, tmp_path / "a").close()


def test_resuming_is_exact(denoiser, tmp_path):
    kind = "copy" if denoiser.v_prediction else "lora"
    _, whole = go_on(session_of(*vsd_scene(denoiser, vsd_model=kind), denoiser, tmp_path / "a"), denoiser, 20)
    go_on(session_of(*vsd_scene(denoiser, vsd_model=kind), denoiser, tmp_path / "b"), denoiser, 10)
    done, parts = go_on(
        session_of(*vsd_scene(denoiser, vsd_model=kind), denoiser, tmp_path / "b"), denoiser, 20
    )
    assert done == 20
    assert any(name.startswith("guidance.adamw.") for name in whole)
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_two_of_a_pack_are_each_as_alone(denoiser):
    """Each has its own second model; the call of the 2D model for both differs in its last bits."""
    seeds, n_steps = (0, 1), 10
    alone = [vsd_scene(denoiser, seed=seed)[0] for seed in seeds]
    together = [vsd_scene(denoiser, seed=seed)[0] for seed in seeds]
    for _ in range(n_steps):
        for scene in alone:
            optimize_step([scene], denoiser)
        optimize_step(together, denoiser)
    states = [[scene.guidance.state_dict() for scene in scenes] for scenes in (alone, together)]
    for one, other in zip(*states):
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], atol=1e-4, rtol=1e-3, msg=name)
    camera = "own.unet.class_embedding.2.weight"
    assert not torch.allclose(states[0][0][camera], states[0][1][camera], atol=1e-4)


def test_options_choose_it(denoiser, monkeypatch):
    run = run_of(guidance_form="vsd")
    told = run.guidance
    assert (told.scale, told.weighting, told.vsd_model, told.vsd_lr) == (7.5, "sds", "lora", 1e-4)
    assert run_of(guidance_form="vsd", guidance=3.0).guidance.scale == 3.0
    with pytest.raises(OptionError, match="--vsd_lr belongs to --guidance_form vsd. It came with sds"):
        run_of(guidance_form="sds", vsd_lr=1e-3)
    for form in ("sds", "vsd"):
        with pytest.raises(OptionError, match=f"--var_red must be True with --guidance_form {form}"):
            run_of(guidance_form=form, var_red=False)
    with pytest.raises(ValueError, match="Data has none. Choose --guidance_form sds"):
        build_guidance(run, Data(), [])
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="needs the package peft.*or choose --vsd_model copy"):
        run_of(guidance_form="vsd")
    assert run_of(guidance_form="vsd", vsd_model="copy").guidance.vsd_model == "copy"


@pytest.mark.parametrize("begin", ["run", "sweep"])
def test_it_is_refused_to_a_model_of_pixels_before_anything_is_loaded(
    tmp_path, command, capsys, monkeypatch, begin
):
    """By the index of the folder, which here is all that there is."""
    folder = write_index(tmp_path / "pixels", "IFPipeline")
    monkeypatch.setattr("sjc_debiased.making.prepare.plan_prompts", None)
    monkeypatch.setattr("sjc_debiased.models.loading.load_model", None)
    if begin == "run":
        code, folders = command("--guidance_form", "vsd", "--vsd_model", "copy", model=folder)
        assert (code, folders) == (2, [])
        said = capsys.readouterr().err
    else:
        asked = {"model": str(folder), "guidance_form": "vsd", "vsd_model": "copy", "run_root": tmp_path}
        plan = make_plan(sweep_options(suite="menagerie", limit=1, presets="sjc", **asked), [])
        assert plan.work.todo == ()
        said = plan.refused[0][1]
    assert (
        f"--model {folder} is DeepFloyd IF's first stage. Choose another model, or --guidance_form sds"
        in said
    )


@pytest.mark.parametrize("timesteps", [("20", "982"), ("20", "0:981,5:1000")])
def test_timesteps_that_a_model_of_pixels_has_not_are_refused_before_anything_is_loaded(
    tmp_path, command, capsys, timesteps
):
    folder = write_index(tmp_path / "pixels", "IFPipeline")
    code, folders = command("--timesteps", *timesteps, model=folder)
    assert (code, folders) == (2, [])
    assert "timesteps of DeepFloyd IF's first stage end at 980" in capsys.readouterr().err


def test_a_run_with_it_ends_with_its_results(command):
    code, (folder,) = command(
        "--guidance_form", "vsd", "--timesteps", "20", "0:980,10:500", "--n_steps", "20"
    )
    assert code == 0
    assert (folder / FINISHED).exists()

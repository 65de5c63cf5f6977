"""One run from its options to its finished folder: the loop with its logs, checkpoints and pictures."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adapt_sd import StableDiffusion, check_pipeline_folder, check_prompts, load_pipeline
from prompts.debias import ViewPrompts, debias_prompt, plain_prompts
from prompts.masked_lm import Bert
from prompts.views import VIEW_SCHEMES
from sjc_debiased.clipping import ClipSchedule
from sjc_debiased.config import MeshFormat, OptionError, Resolved
from sjc_debiased.models import Choice
from sjc_debiased.optimize import Settings, Step, make_optimizer, optimize
from sjc_debiased.pictures import (
    save_contact_sheet,
    save_preview,
    save_score_magnitude,
    save_turntable,
)
from sjc_debiased.runs import (
    FINISHED,
    RunError,
    StatsLog,
    atomic,
    save_checkpoint,
    write_json,
)
from voxnerf.cameras import sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.mesh import EmptyMeshError, extract_mesh

CHECKPOINT_SHARE = 0.05
PREVIEW_SHARE = 0.01
_STATS_EVERY = 10
_STATS = (
    "sigma",
    "direction_rms",
    "direction_p95_abs",
    "clipped_fraction",
    "latent_mean",
    "latent_std",
    "opacity_mean",
    "emptiness_loss",
)


class DivergedError(RuntimeError):
    """A latent or a direction stopped being finite; the message says where."""


def plan_prompts(resolved: Resolved, choice: Choice, local_files_only: bool) -> ViewPrompts:
    """Return the prompt of every view, after checking that the text encoder can take them.

    Raises:
        OptionError: a prompt is too long, or a model is out of reach.
    """
    scheme = VIEW_SCHEMES[resolved.views]
    plain = plain_prompts(resolved.prompt, scheme)
    try:
        check_pipeline_folder(choice.location)
        check_prompts(choice.location, list(plain.sent.values()), local_files_only)
        if resolved.masked_lm is None:
            return plain
        masked_lm = Bert(choice.masked_lm(resolved.masked_lm), local_files_only)
        return debias_prompt(resolved.prompt, masked_lm, scheme, resolved.keep)
    except (OSError, ValueError) as error:
        raise OptionError(str(error)) from error


class Session:
    """Hold what a run needs: the denoiser, the scene, and everything drawn before the first step."""

    def __init__(self, resolved: Resolved, choice: Choice, prompts: ViewPrompts, local_files_only: bool):
        self.resolved, self.choice, self.prompts = resolved, choice, prompts
        device = torch.device(resolved.device)
        try:
            pipeline = load_pipeline(choice.location, local_files_only)
            dtype = getattr(torch, resolved.precision)
            self.denoiser = StableDiffusion(pipeline, resolved.guidance, device, dtype)
        except (OSError, ValueError) as error:
            raise OptionError(str(error)) from error
        self.settings = _settings(resolved)
        config = GridConfig(
            resolution=resolved.resolution,
            half_size=resolved.half_size,
            channels=self.denoiser.latent_channels,
            background_mapping=resolved.background,
        )
        generator = torch.Generator().manual_seed(resolved.seed)
        self.grid = VoxelGrid(config, generator).to(device)
        self.optimizer = make_optimizer(self.grid, self.settings)
        self.cameras = sample_sjc_cameras(
            resolved.n_steps, self.denoiser.latent_size, np.random.RandomState(resolved.seed)
        )
        scheme = VIEW_SCHEMES[resolved.views]
        self.views = [scheme.view(c.azimuth_deg, c.elevation_deg) for c in self.cameras]

    def run(self, folder: Path, state: tuple[int, dict] | None, mesh_formats: tuple[MeshFormat, ...]) -> int:
        """Optimise from a checkpoint's state on, then write the results; return the exit code."""
        began = time.monotonic()
        first_step = 0
        if state:
            first_step, tensors = state
            self._restore(tensors)
            print(f"resuming at step {first_step} of {self.settings.n_steps}")
        done = self._optimize(folder, first_step)
        if done < self.settings.n_steps:
            print(f"stopped after step {done}, saved. The same command goes on from there: {folder}")
            return 130
        optimized = time.monotonic()
        mesh = self._write_results(folder, mesh_formats)
        finished = time.monotonic()
        result = {
            "n_steps": self.settings.n_steps,
            "mesh": mesh,
            "optimization_time_s": round(optimized - began, 1),
            "rendering_time_s": round(finished - optimized, 1),
            "resumed_at_step": first_step,
        }
        write_json(folder / FINISHED, result)
        print(
            f"done in {finished - began:.0f} s ({optimized - began:.0f} s optimisation, "
            f"{finished - optimized:.0f} s turntable and mesh): {folder}"
        )
        if "error" in mesh:
            print(f"warning: no mesh was written. {mesh['error']}", file=sys.stderr)
        return 0

    def _optimize(self, folder: Path, first_step: int) -> int:
        """Run the loop and return how many steps are done; fewer than all after Ctrl-C or SIGTERM."""
        settings, n = self.settings, self.settings.n_steps
        preview_at, checkpoint_at = _milestones(n, PREVIEW_SHARE), _milestones(n, CHECKPOINT_SHARE)
        clip_end = self.resolved.clip_end or self.choice.profile.clip_end
        magnitude_max = clip_end * self.denoiser.latent_channels**0.5
        (folder / "previews").mkdir(exist_ok=True)
        text = self._embed()
        log, pending = StatsLog(folder, first_step), []
        steps = optimize(
            self.grid,
            self.optimizer,
            self.denoiser,
            self.cameras,
            [text[view] for view in self.views],
            settings,
            self.resolved.seed,
            first_step,
        )
        done = first_step
        with _stop_requests() as stop, tqdm(initial=first_step, total=n, unit="step") as bar:
            for step in steps:
                done = step.step + 1
                pending.append((step, _measure(step)))
                last = bool(stop) or done == n
                if done % _STATS_EVERY == 0 or done in preview_at or last:
                    log.write(self._check(pending))
                    pending = []
                if done in preview_at:
                    path = folder / "previews" / f"step_{done:06d}.png"
                    save_preview(path, step, self.denoiser, magnitude_max)
                if done in checkpoint_at or last:
                    log.flush()
                    self._check_parameters(step)
                    save_checkpoint(folder, done, self._state())
                bar.update()
                if step.clip_value is not None:
                    bar.set_postfix(clip=f"{step.clip_value:.3g}", refresh=False)
                if last:
                    break
        log.close()
        return done

    def _embed(self) -> dict[str, Tensor]:
        """Return the text embedding of every view, each distinct prompt embedded once."""
        distinct = list(dict.fromkeys(self.prompts.sent.values()))
        rows = dict(zip(distinct, self.denoiser.embed(distinct).split(1)))
        return {view: rows[prompt] for view, prompt in self.prompts.sent.items()}

    def _check(self, pending: list[tuple[Step, Tensor]]) -> list[dict]:
        """Read the measurements from the device, as rows of `stats.jsonl`.

        Raises:
            DivergedError: a latent or direction is not finite.
        """
        rows = []
        for (step, _), values in zip(pending, torch.stack([m for _, m in pending]).tolist()):
            camera = step.camera
            row = {
                "step": step.step,
                "azimuth_deg": round(camera.azimuth_deg, 3),
                "elevation_deg": round(camera.elevation_deg, 3),
                "view": self.views[step.step],
                "clip_value": step.clip_value,
                **dict(zip(_STATS, values)),
                "depth_loss": None if step.depth_term is None else step.depth_term.item(),
            }
            rows.append(row)
            if not np.isfinite([row["latent_std"], row["direction_rms"]]).all():
                raise DivergedError(
                    f"latents and directions must stay finite. At step {step.step} (sigma "
                    f"{row['sigma']:.4g}, azimuth {camera.azimuth_deg:.1f}, elevation "
                    f"{camera.elevation_deg:.1f} degrees) one did not: latent std "
                    f"{row['latent_std']}, direction rms {row['direction_rms']}. The last good checkpoint "
                    "is kept. Try --precision float32, or a lower --lr or --guidance."
                )
        return rows

    def _check_parameters(self, step: Step) -> None:
        """Refuse to save a scene that is not finite.

        Raises:
            DivergedError: names the parameter.
        """
        for name, param in self.grid.named_parameters():
            if not torch.isfinite(param).all():
                raise DivergedError(
                    f"the scene must stay finite. After step {step.step} (sigma {float(step.sigma):.4g}) its "
                    f"{name} is not. The last good checkpoint is kept. Try a lower --lr or --guidance."
                )

    def _write_results(self, folder: Path, mesh_formats: tuple[MeshFormat, ...]) -> dict:
        """Write contact sheet, score magnitude, turntable and meshes; return what the mesh is."""
        grid, denoiser = self.grid, self.denoiser
        previews = sorted((folder / "previews").glob("step_*.png"))
        save_score_magnitude(folder / "score_magnitude.png", previews)
        save_contact_sheet(folder / "contact_sheet.png", grid, denoiser)
        save_turntable(folder / "turntable.mp4", grid, denoiser)
        try:
            mesh = extract_mesh(grid, denoiser.decode, denoiser.latent_size)
        except EmptyMeshError as error:
            return {"error": str(error)}
        for ending in mesh_formats:
            with atomic(folder / f"mesh.{ending}") as partial:
                mesh.save(partial)
        return {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "level": mesh.level}

    def _state(self) -> dict[str, Tensor]:
        """Return everything that resuming needs, by name; the noise of a step needs only its number."""
        state = {f"grid.{name}": p for name, p in self.grid.named_parameters()}
        for name, param in self.grid.named_parameters():
            for key, value in self.optimizer.state[param].items():
                state[f"adamax.{name}.{key}"] = value
        return state

    def _restore(self, state: dict[str, Tensor]) -> None:
        try:
            with torch.no_grad():
                for name, param in self.grid.named_parameters():
                    param.copy_(state[f"grid.{name}"])
                    prefix = f"adamax.{name}."
                    self.optimizer.state[param] = {
                        key.removeprefix(prefix): (
                            value.clone() if key.endswith(".step") else value.to(param.device)
                        )
                        for key, value in state.items()
                        if key.startswith(prefix)
                    }
        except (KeyError, RuntimeError) as error:
            raise RunError(
                f"a checkpoint must hold this run's scene. This one does not ({error}). Delete it to go on "
                "from the one before."
            ) from error


def _settings(r: Resolved) -> Settings:
    same = ("n_steps", "lr", "background_lr", "n_noise", "var_red", "depth_weight", "depth_loss")
    emptiness = tuple(f"emptiness_{k}" for k in ("weight", "scale", "step", "multiplier"))
    fields = {name: getattr(r, name) for name in (*same, *emptiness)}
    return Settings(**fields, clip=ClipSchedule(r.clip_start, r.clip_end))


def _milestones(n_steps: int, share: float) -> set[int]:
    """Return the counts of done steps after each `share` of the run; the last one is n_steps."""
    n = round(1 / share)
    return {-(-n_steps * i // n) for i in range(1, n + 1)}


@torch.no_grad()
def _measure(step: Step) -> Tensor:
    """Return the values of `_STATS` as one tensor on the device, without reading them."""
    magnitude = step.direction.abs()
    clipped = magnitude > step.clip_value if step.clip_value is not None else magnitude < 0
    latent = step.rendering.latent
    return torch.stack(
        [
            step.sigma,
            step.direction.square().mean().sqrt(),
            magnitude.flatten().quantile(0.95),
            clipped.float().mean(),
            latent.mean(),
            latent.std(),
            step.rendering.opacity.mean(),
            step.rendering.emptiness,
        ]
    )


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Yield a list that is empty until SIGINT or SIGTERM comes; a second one stops at once."""
    received: list[int] = []

    def note(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

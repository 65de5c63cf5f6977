"""One run in its folder: its scene, logs, checkpoints and pictures."""

from __future__ import annotations

import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sjc_debiased.clipped import clipped_share, say_clipped
from sjc_debiased.denoiser import Denoiser
from sjc_debiased.export import export_mesh
from sjc_debiased.folder.checkpoints import remove_partial_files, save_checkpoint
from sjc_debiased.folder.log import StatsLog
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import (
    ENDED,
    FINISHED,
    MESH,
    PREVIEWS,
    RunError,
    check_room,
    checkpoint_bytes,
    preview_path,
    views_path,
    write_json,
)
from sjc_debiased.guidance import TrainedGuidance
from sjc_debiased.making.logged import measure_step, names_of
from sjc_debiased.making.pictures import (
    save_contact_sheet,
    save_fixed_views,
    save_preview,
    save_score_magnitude,
    save_turntable,
)
from sjc_debiased.optimize import Scene, Step
from sjc_debiased.options.mesh_settings import MeshSettings
from sjc_debiased.options.profiles import Profile
from sjc_debiased.pages import or_warn
from sjc_debiased.pages.state import write_ended
from sjc_debiased.pages.write import refresh_all, refresh_view
from sjc_debiased.seeing import decoder_of, looking_size
from sjc_debiased.training_state import restore_training, training_state
from voxnerf.settings import TURNTABLE_FRAMES
from voxnerf.snapshot import N_MESH_SNAPSHOTS, mesh_snapshots, take_snapshots, turn_cameras
from voxnerf.surface import NoMeshError

CHECKPOINT_SHARE = 0.05
PREVIEW_SHARE = 0.01
VIEWS_SHARE = 0.04
_GUIDANCE = "guidance."  # of a checkpoint's names
_STATS_EVERY = 10


class DivergedError(RuntimeError):
    """A latent or a direction stopped being finite; the message says where."""


class Session:
    """One run in its folder: its scene, and the logs, checkpoints and pictures that the scene leaves.

    Attributes:
        scene: what `optimize.one_step` changes.
        folder: the run folder, which the caller has locked.
    """

    def __init__(
        self,
        scene: Scene,
        views: list[str],
        profile: Profile,
        denoiser: Denoiser,
        folder: Path,
        state: tuple[int, dict] | None,
        mesh: MeshSettings,
        turntable: int = TURNTABLE_FRAMES,
    ):
        """Take over a scene at its start, or put it into a checkpoint's state (steps done, tensors).

        Args:
            views: the view of every step, for the log.
            turntable: its frames, a multiple of 24: contact sheet and mesh take some of them.

        Raises:
            RunError: the checkpoint is of another scene, or there is no room for what the guidance learns.
        """
        self.denoiser, self.folder, self.mesh, self.turntable = denoiser, folder, mesh, turntable
        self.scene, self.views, settings = scene, views, scene.settings
        self._decode = decoder_of(scene.field, denoiser)
        self._magnitude_max = (settings.clip.end or profile.clip_end) * denoiser.channels**0.5
        if state:
            self.scene.done, tensors = state
            self._restore(tensors)
        self._resumed_at, self._began = self.scene.done, time.monotonic()
        self._preview_at = _milestones(settings.n_steps, PREVIEW_SHARE)
        self._views_at = {min(self._preview_at)} | _milestones(settings.n_steps, VIEWS_SHARE)
        self._checkpoint_at = _milestones(settings.n_steps, CHECKPOINT_SHARE)
        remove_partial_files(folder)
        if not state:
            check_room(folder, checkpoint_bytes(sum(t.nbytes for t in self._learnt().values())))
        (folder / ENDED).unlink(missing_ok=True)
        (folder / PREVIEWS).mkdir(exist_ok=True)
        self._log = StatsLog(folder, self.scene.done)
        self._pending: list[tuple[Step, Tensor]] = []

    @property
    def remaining_steps(self) -> int:
        """Return how many steps are still to be done."""
        return self.scene.settings.n_steps - self.scene.done

    def record(self, step: Step, stopping: bool) -> None:
        """Log a step, with a preview and a checkpoint where they are due or the run is stopping.

        Raises:
            DivergedError: a latent, a direction or the scene is not finite.
            OSError: something could not be written.
        """
        done = self.scene.done
        last = stopping or self.remaining_steps == 0
        self._pending.append((step, measure_step(step)))
        if done % _STATS_EVERY == 0 or done in self._preview_at or last:
            self._log.write(self._check(self._pending))
            self._pending = []
        if done in self._preview_at:
            save_preview(preview_path(self.folder, done), step, self._decode, self._magnitude_max)
            if done in self._views_at:
                place = views_path(self.folder, done)
                or_warn(str(place), lambda: save_fixed_views(place, self.scene.field, self.denoiser))
        if done in self._checkpoint_at or last:
            self._log.flush()
            self._check_parameters(step)
            save_checkpoint(self.folder, done, self._state())
        if done in self._preview_at:
            refresh_view(self.folder)

    def finish(self, quiet: bool = False) -> None:
        """Write the results of a scene whose steps are done, and say so.

        Args:
            quiet: without progress bars.

        Raises:
            OSError: something could not be written.
        """
        optimized = time.monotonic()
        mesh = self._write_results(quiet)
        finished = time.monotonic()
        result = {
            "n_steps": self.scene.settings.n_steps,
            "mesh": mesh,
            "optimization_time_s": round(optimized - self._began, 1),
            "rendering_time_s": round(finished - optimized, 1),
            "resumed_at_step": self._resumed_at,
        }
        share = clipped_share(RunReader(self.folder).stats())
        result |= {} if share is None else {"clipped_share": round(share, 6)}
        write_json(self.folder / FINISHED, result)
        tqdm.write(
            f"done in {finished - self._began:.0f} s ({optimized - self._began:.0f} s optimisation, "
            f"{finished - optimized:.0f} s turntable and mesh): {self.folder}"
        )
        if share is not None:
            tqdm.write(say_clipped(share))
        if "error" in mesh:
            print(f"warning: no mesh was written. {mesh['error']}", file=sys.stderr)

    def end(self, error: Exception | None) -> None:
        """Write down how the run ended where it did not finish, and bring all pages up to date; never fail.

        Args:
            error: what it failed with.
        """
        run = RunReader(self.folder)
        if error or not run.finished:
            or_warn(str(self.folder / ENDED), lambda: write_ended(run, error))
        refresh_all(self.folder)

    def close(self) -> None:
        """Close the log."""
        self._log.close()

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
                "depth_loss": None,
                **dict(zip(names_of(step), values)),
            }
            rows.append(row)
            if not np.isfinite([row["latent_std"], row["direction_rms"]]).all():
                raise DivergedError(self._what_diverged(row))
        return rows

    def _what_diverged(self, row: dict) -> str:
        """Say what is not finite, at which step, and what to try."""
        at = (
            f"At step {row['step']} (sigma {row['sigma']:.4g}, azimuth {row['azimuth_deg']:.1f}, elevation "
            f"{row['elevation_deg']:.1f} degrees)"
        )
        if np.isfinite(row["latent_std"]) and self.denoiser.dtype == torch.float16:
            return (
                f"the U-Net must stay within float16's range. {at} it overflowed: its input was finite, its "
                "output was not, as Stable Diffusion 2.1 is known for. The last good checkpoint is kept. Use "
                "--precision float32, or bfloat16."
            )
        return (
            f"latents and directions must stay finite. {at} one did not: latent std {row['latent_std']}, "
            f"direction rms {row['direction_rms']}. The last good checkpoint is kept. Try --precision "
            "float32, or a lower --lr or --guidance."
        )

    def _check_parameters(self, step: Step) -> None:
        """Refuse to save a scene, or what its guidance has learnt, that is not finite.

        Raises:
            DivergedError: names the parameter.
        """
        for name, param in chain(self.scene.field.named_parameters(), self._learnt().items()):
            if not torch.isfinite(param).all():
                raise DivergedError(
                    f"the scene must stay finite. After step {step.step} (sigma {float(step.sigma):.4g}) its "
                    f"{name} is not. The last good checkpoint is kept. Try a lower --lr or --guidance."
                )

    def _write_results(self, quiet: bool) -> dict:
        """Write contact sheet, score magnitude, turntable and meshes; return what the mesh is."""
        files, field, decode = RunReader(self.folder), self.scene.field, self._decode
        size = looking_size(field, self.denoiser)
        save_score_magnitude(files.score_magnitude, files.previews)
        views = take_snapshots(field, decode, turn_cameras(size, self.turntable), upscale=2)
        turn = list(tqdm(views, "turntable", self.turntable, unit="view", leave=False, disable=quiet))
        save_contact_sheet(files.contact_sheet, turn)
        save_turntable(files.turntable, turn)
        n_parts = 2 * N_MESH_SNAPSHOTS  # the surface takes about as long as its views
        with tqdm(desc="mesh", total=n_parts, unit="part", leave=False, disable=quiet) as bar:
            snapshots = []
            for snapshot in mesh_snapshots(field, decode, size, turn):
                snapshots.append(snapshot)
                bar.update()
            try:
                return export_mesh(field, snapshots, self.folder / MESH, self.mesh)
            except NoMeshError as error:
                return {"error": str(error)}

    def _state(self) -> dict[str, Tensor]:
        """Return everything that resuming needs, by name; the noise of a step needs only its number."""
        parameters = self.scene.field.named_parameters()
        return training_state(parameters, self.scene.optimizer, "grid", "adamax") | self._learnt()

    def _learnt(self) -> dict[str, Tensor]:
        guidance = self.scene.guidance
        learnt = guidance.state_dict() if isinstance(guidance, TrainedGuidance) else {}
        return {_GUIDANCE + name: tensor for name, tensor in learnt.items()}

    def _restore(self, state: dict[str, Tensor]) -> None:
        try:
            parameters = self.scene.field.named_parameters()
            restore_training(state, parameters, self.scene.optimizer, "grid", "adamax")
            if isinstance(self.scene.guidance, TrainedGuidance):
                learnt = {k.removeprefix(_GUIDANCE): v for k, v in state.items() if k.startswith(_GUIDANCE)}
                self.scene.guidance.load_state_dict(learnt)
        except (KeyError, RuntimeError) as error:
            raise RunError(
                f"a checkpoint must hold this run's scene. This one does not ({error}). Delete it to go on "
                "from the one before."
            ) from error


def _milestones(n_steps: int, share: float) -> set[int]:
    """Return the counts of done steps after each `share` of the run; the last one is n_steps."""
    n = round(1 / share)
    return {-(-n_steps * i // n) for i in range(1, n + 1)}

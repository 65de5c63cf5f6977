"""A clean surface for a finished run: Magic3D's refine stage, by itself.

python -m sjc_debiased.refine RUN --steps 750 --resolution 64
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from prompts.debias import ViewPrompts
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import RunError, locked, write_json
from sjc_debiased.options.command import MeshFormat, OptionError
from sjc_debiased.options.config import Resolved, part
from sjc_debiased.options.frameworks import FRAMEWORKS
from sjc_debiased.options.mesh_settings import MeshSettings, mesh_settings
from sjc_debiased.schedules import TimestepRange
from sjc_debiased.settings import GuidanceSettings, Prompting, Settings, Viewing
from voxnerf.settings import GridConfig

if TYPE_CHECKING:
    from sjc_debiased.denoiser import Denoiser
    from sjc_debiased.making.session import Session
    from voxnerf.grid import VoxelGrid

_FOLDER, _ABOUT = "refined", "refine.json"
_RESOLUTIONS = (8, 128)
_TIMESTEPS = ("20", "501")  # threestudio's 0.02 to 0.5
_COARSE_TIMESTEPS = FRAMEWORKS["magic3d"]["timesteps"]  # those of every scene that is lit
_SHARPER = 4  # than the coarse stage: pictures of RGB, 256 x 256 of Stable Diffusion's 512 x 512
_OTHER_SEEDS = 2**31  # those of runs are smaller: other cameras and other noise than the run had
_Int = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: half of the run's)")]


@dataclass(frozen=True)
class RefineOptions:
    """Turn the density of a finished run into a surface, and optimise that with the run's own guidance.

    What comes of it goes into a new folder within the run's: `refined`, or `refined-2` and so on if that is
    taken.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    steps: _Int = None
    """Optimisation steps."""
    resolution: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the run's, from 8 to 128)")
    ] = None
    """Cells along each side of the grid of tetrahedra, which is only as large as the object."""
    roughness_weight: float = 10_000.0
    """Weight of the roughness of the surface; the default is threestudio's."""
    level: Annotated[str, tyro.conf.arg(metavar="auto|NUMBER")] = "auto"
    """Density at which the surface starts. auto: the one whose silhouettes fit the run's pictures best."""
    faces: int = MeshSettings.faces
    """Of the mesh: at most so many triangles."""
    texture: int = MeshSettings.texture
    """Pixels of the mesh's texture's sides; 0 for colors of vertices alone."""
    format: tuple[MeshFormat, ...] = MeshSettings.formats
    """Formats of the mesh."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N, or mps (untested)."""


@dataclass(frozen=True)
class Stage:
    """Say what is new when a run is refined.

    Attributes:
        resolution: cells along each side of the grid of tetrahedra.
        prompts: what was sent for each view.
    """

    resolution: int
    prompts: ViewPrompts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 2 refused, 1 failed, 130 interrupted."""
    try:
        options = tyro.cli(
            RefineOptions, args=argv, prog="python -m sjc_debiased.refine", use_underscores=True
        )
        return _refine_run(options)
    except (OptionError, RunError) as error:
        print(f"refine: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"refine: files must be writable. One is not ({error}). Mend it, and repeat the command.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("refine: interrupted. The run is as it was.", file=sys.stderr)
        return 130


def _refine_run(options: RefineOptions) -> int:
    """Refine a run into a new folder; return the exit code.

    Raises:
        RunError: the folder holds no finished run, or its density no surface.
        OptionError: an option is out of range, or the device is not there.
    """
    mesh = mesh_settings(options.level, options.faces, options.texture, options.format, "--")
    run, stage = _plan(options, RunReader(options.run))

    from sjc_debiased.making.made import load_scene
    from sjc_debiased.making.pack import run_packed
    from sjc_debiased.making.session import DivergedError
    from sjc_debiased.models.machine import choose_machine
    from voxnerf.grid import VoxelGrid
    from voxnerf.surface import NoMeshError

    device = choose_machine(options.device).device
    with locked(options.run):
        print("loading the model ...", flush=True)
        try:
            _, grid, denoiser = load_scene(options.run, device, asked=True)
        except ValueError as error:
            raise RunError(str(error)) from error
        if not isinstance(grid, VoxelGrid):
            raise RunError(
                f"a density on voxels is refined. {options.run} is a {type(grid).__name__}. Export its mesh: "
                "python -m sjc_debiased.export RUN"
            )
        opening = _opened(options.run, run, stage, grid, denoiser, mesh)
        (ended,) = run_packed([(run, opening)], denoiser, pack=1)
    if isinstance(ended.error, (NoMeshError, DivergedError)):
        print(f"refine: {ended.error}", file=sys.stderr)
        return 1 if ended.session else 2
    if ended.error:
        raise ended.error
    if ended.stopped and ended.session:
        print(f"stopped after step {ended.session.scene.done}. What is there stays: {ended.session.folder}")
        return 130
    return 0


def _plan(options: RefineOptions, reader: RunReader) -> tuple[Resolved, Stage]:
    """Return the run as it goes on, and what is new in it.

    Raises:
        RunError: the folder holds no finished run.
        OptionError: an option is out of range.
    """
    known, told = reader.options, reader.view_prompts
    if not reader.finished or told is None:
        lacks = "finished" if told else "one that says its view prompts"
        raise RunError(f"only a finished run is refined. {options.run} is not {lacks}. Make it anew.")
    n_steps = max(1, known["n_steps"] // 2) if options.steps is None else options.steps
    weight = options.roughness_weight
    least, most = _RESOLUTIONS
    usual = min(max(known["resolution"], least), most)
    resolution = usual if options.resolution is None else options.resolution
    for holds, name, rule, value in (
        (n_steps >= 1, "steps", "at least 1", n_steps),
        (least <= resolution <= most, "resolution", f"between {least} and {most}", resolution),
        (0 <= weight < math.inf, "roughness_weight", "finite and not negative", weight),
    ):
        if not holds:
            raise OptionError(f"--{name} must be {rule}. It is {value}. Leave it out for the default.")
    new = {"n_steps": n_steps, "schedule_steps": n_steps, "roughness_weight": weight}
    own: tuple[str, ...] = tuple(known["timesteps"] or ())
    if known.get("light"):
        new |= {"sparsity_weight": 0.0, "albedo_share": 0.0}  # of a volume, and of a start in colors alone
        own = () if own == _COARSE_TIMESTEPS else own
    if own:  # where the run's schedule ended
        own = tuple(map(str, TimestepRange.parse(*own).at(known["n_steps"])))
    timesteps = {"timesteps": own or _TIMESTEPS}
    name = {f: known[f] for f in ("prompt", "preset", "model", "fingerprint")}
    run = Resolved(
        **name,
        seed=known["seed"] + _OTHER_SEEDS,
        prompting=part(Prompting, known),
        settings=part(Settings, known | new),
        guidance=part(GuidanceSettings, known | timesteps),
        field=part(GridConfig, known),
        viewing=part(Viewing, known | new),
    )
    return run, Stage(resolution, ViewPrompts(**told))


@contextmanager
def _opened(
    folder: Path, run: Resolved, stage: Stage, grid: VoxelGrid, denoiser: Denoiser, mesh: MeshSettings
) -> Iterator[Session]:
    """Hold the session of a new folder, at the start of a surface.

    Raises:
        NoMeshError: the density has none; then there is no folder.
    """
    from tqdm import tqdm

    from sjc_debiased.making.scene import scene_around
    from sjc_debiased.making.session import Session
    from sjc_debiased.models.choose import choose_model
    from sjc_debiased.seeing import decoder_of, looking_size
    from voxnerf.snapshot import N_MESH_SNAPSHOTS, mesh_snapshots
    from voxnerf.tetra_field import TetraField

    views = mesh_snapshots(grid, decoder_of(grid, denoiser), looking_size(grid, denoiser))
    snapshots = list(tqdm(views, "views", N_MESH_SNAPSHOTS, unit="view", leave=False))
    field = TetraField.from_grid(grid, snapshots, stage.resolution, mesh.level)
    sharper = _SHARPER if field.rgb else 1
    scene, view_of_step = scene_around(field, run, stage.prompts, denoiser, sharper)
    target = _new_folder(folder)
    tqdm.write(f"refined into: {target}, from the surface at level {field.level:.4g}")
    about = {"n_steps": run.n_steps, "seed": run.seed, "level": field.level, "box": field.box.tolist()}
    shape = {"resolution": stage.resolution, "roughness_weight": run.settings.roughness_weight}
    write_json(target / _ABOUT, about | shape)
    profile = choose_model(run.model, str(denoiser.device)).profile
    session = Session(scene, view_of_step, profile, denoiser, target, None, mesh)
    try:
        yield session
    finally:
        with suppress(OSError):  # what it could not write, it could not write before either
            session.close()


def _new_folder(run: Path) -> Path:
    """Return a new folder in a run's; what is there stays."""
    for number in count(1):
        target = run / (_FOLDER if number == 1 else f"{_FOLDER}-{number}")
        with suppress(FileExistsError):
            target.mkdir()
            return target
    raise AssertionError("numbers do not end")


if __name__ == "__main__":
    sys.exit(main())

"""The mesh of a run, written by the run itself and, for stopped and finished runs, by a command.

python -m sjc_debiased.export RUN --level auto --faces 20000 --texture 1024 --format glb obj ply
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sjc_debiased.folder.runs import MESH, RunError, atomic, locked, sha256, write_json
from sjc_debiased.options.command import MeshFormat, OptionError
from sjc_debiased.options.mesh_settings import DEFAULT_MESH, MeshSettings, mesh_settings

if TYPE_CHECKING:
    from sjc_debiased.folder.reader import RunReader
    from voxnerf.field import Field
    from voxnerf.mesh import Mesh
    from voxnerf.snapshot import Snapshot

_ENDINGS: tuple[MeshFormat, ...] = ("glb", "ply", "obj")
_GOOD_IOU = 0.6


@dataclass(frozen=True)
class ExportOptions:
    """Make the mesh of a stopped or finished run, with other settings than its own if you like.

    Files go into the run folder: `mesh.glb` with the run's own settings, `mesh-level6-faces5000.glb` with
    others, `mesh-step000900.glb` from a run that was stopped. A file that was changed since it was written is
    kept under another name.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    level: Annotated[str, tyro.conf.arg(metavar="auto|NUMBER")] = "auto"
    """Density of the surface. auto: the one whose silhouettes fit the run's pictures best."""
    faces: int = MeshSettings.faces
    """At most so many triangles."""
    texture: int = MeshSettings.texture
    """Pixels of the texture's sides; 0 for colors of vertices alone."""
    format: tuple[MeshFormat, ...] = MeshSettings.formats
    """Formats to write."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Write NAME.glb and so on, and not into the run folder. Nothing is overwritten."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N, or mps (untested)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 2 refused, 1 failed, 130 interrupted."""
    try:
        options = tyro.cli(
            ExportOptions, args=argv, prog="python -m sjc_debiased.export", use_underscores=True
        )
        settings = mesh_settings(options.level, options.faces, options.texture, options.format, "--")
        _export_run(options, settings)
    except (OptionError, RunError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"export: files must be writable. One is not ({error}). Mend it, or use --out.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("export: interrupted. Nothing is half written.", file=sys.stderr)
        return 130
    return 0


def export_mesh(
    field: Field, snapshots: Sequence[Snapshot], place: Path, settings: MeshSettings, record: bool = True
) -> dict:
    """Make a field's mesh, write its files, and return what was made.

    Args:
        snapshots: of `voxnerf.snapshot.mesh_snapshots`. place: path of the files, without ending.
        record: write what was made to `place`.json too. It tells what this program wrote from what another
            one changed, which is kept.

    Raises:
        NoMeshError: there is no object, or it is not free of the walls; says what to try.
        OSError: a file could not be written.
    """
    from voxnerf.mesh_files import mesh_files

    mesh = field.to_mesh(snapshots, settings.level, settings.faces, settings.texture)
    _warn(mesh)
    record_path = place.with_name(f"{place.name}.json")
    known = _files_of(record_path)
    for ending in settings.formats:
        for name, data in mesh_files(mesh, place.name, ending).items():
            path = place.with_name(name)
            _keep_changed(path, known.get(name))
            with atomic(path) as partial:
                partial.write_bytes(data)
            known[name] = sha256(path)
    made = {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "level": mesh.level,
        "iou": round(mesh.iou, 4),
        "dropped_parts": mesh.dropped_parts,
        "dropped_share": round(mesh.dropped_share, 4),
        "touches_walls": mesh.touches_walls,
        "settings": settings.form,
        "files": known,
    }
    if record:
        write_json(record_path, made)
    return made


def _export_run(options: ExportOptions, settings: MeshSettings) -> None:
    """Export the mesh of a run folder.

    Raises:
        RunError: the folder holds no run that could be shown, or no mesh that is one.
        OptionError: the device is not there, or a file is in the way.
    """
    from sjc_debiased.folder.identity import saved_options
    from sjc_debiased.folder.reader import RunReader
    from sjc_debiased.pages.write import refresh_view

    folder, reader = options.run, RunReader(options.run)
    saved = saved_options(folder)
    if saved is None:
        raise RunError(
            f"RUN must be a run folder. {folder} has no readable options.json. Name a folder that run_sjc.py "
            "made, as in runs/00000-dsds-a-smiling-cat-seed0."
        )
    with locked(folder) if options.out is None else nullcontext():
        checkpoint = reader.checkpoint
        if checkpoint is None:
            raise RunError(
                f"a mesh is made from a checkpoint. {folder} has none yet. Let its run go on to 5 % of its "
                "steps."
            )
        if options.out is None:
            finished = checkpoint.step == saved["n_steps"] and reader.finished
            place = place_of(folder, settings, None if finished else checkpoint.step)
        else:
            place = _free_place(options.out, settings.formats)
        made = _make(folder, options.device, place, settings, record=options.out is None)
        if options.out is None:
            refresh_view(folder)
    names = ", ".join(str(place.with_name(f"{place.name}.{ending}")) for ending in settings.formats)
    print(f"{names}: {made['faces']:,} faces at level {made['level']:.4g}, IoU {made['iou']:.2f}")


def _make(folder: Path, wanted_device: str, place: Path, settings: MeshSettings, record: bool) -> dict:
    from tqdm import tqdm

    from sjc_debiased.making.made import load_scene
    from sjc_debiased.models.machine import choose_machine
    from sjc_debiased.seeing import decoder_of, looking_size
    from voxnerf.snapshot import N_MESH_SNAPSHOTS, mesh_snapshots
    from voxnerf.surface import NoMeshError

    device = choose_machine(wanted_device).device
    print("loading the model ...", flush=True)
    try:
        _, field, denoiser = load_scene(folder, device, stopped=True)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error
    views = mesh_snapshots(field, decoder_of(field, denoiser), looking_size(field, denoiser))
    snapshots = list(tqdm(views, total=N_MESH_SNAPSHOTS, desc="views", unit="view"))
    try:
        return export_mesh(field, snapshots, place, settings, record)
    except NoMeshError as error:
        raise RunError(str(error)) from error


def place_of(folder: Path, settings: MeshSettings, step: int | None = None) -> Path:
    """Return the path of a mesh's files, without ending; its name says how it differs from the run's own.

    Args:
        step: of the checkpoint it is made from; None of a finished run.
    """
    from sjc_debiased.folder.reader import RunReader

    own = _own_form(RunReader(folder))
    parts = [MESH] if step is None else [MESH, f"step{step:06d}"]
    for name, value in settings.form.items():
        if value != own[name]:
            parts.append(f"{name}{'auto' if value is None else f'{value:g}' if name == 'level' else value}")
    return folder / "-".join(parts)


def _own_form(run: RunReader) -> dict:
    """Return the settings of the mesh that a run made itself; the defaults where it made none."""
    try:
        return MeshSettings(**run.result["mesh"]["settings"]).form
    except (RunError, ValueError, KeyError, TypeError):
        return DEFAULT_MESH.form


def _free_place(out: Path, formats: Sequence[MeshFormat]) -> Path:
    """Return a path without ending, after looking that nothing is there.

    Raises:
        OptionError: something is, or its folder is not, or its ending is no format that is written.
    """
    ending = out.suffix[1:]
    if ending in _ENDINGS and ending not in formats:
        raise OptionError(
            f"--out ends like a format that is written. It is {out}, and --format is {' '.join(formats)}. "
            f"Add --format {ending}, or leave the ending out."
        )
    place = out.with_suffix("") if ending in _ENDINGS else out
    if not place.parent.is_dir():
        raise OptionError(f"--out must be in a folder. {place.parent} is none. Make it, or choose another.")
    ours = {f"{place.name}{end}" for end in (".glb", ".ply", ".obj", ".mtl", "_texture.png")}
    there = sorted(p for p in place.parent.iterdir() if p.name in ours)
    if there:
        raise OptionError(f"--out overwrites nothing. {there[0]} is there. Choose another name, or move it.")
    return place


def _files_of(record: Path) -> dict[str, str]:
    """Return the files that an export wrote, and their SHA-256."""
    try:
        return dict(json.loads(record.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _keep_changed(path: Path, written: str | None) -> None:
    """Move a file that is not as this program wrote it out of the way, and say so."""
    if not path.exists() or sha256(path) == written:
        return
    n = 1
    while (kept := path.with_name(f"{path.stem}.kept-{n}{path.suffix}")).exists():
        n += 1
    path.rename(kept)
    print(f"{path.name} is not as it was written here: kept as {kept.name}")


def _warn(mesh: Mesh) -> None:
    """Say what was left out, and what speaks against the mesh."""
    if mesh.dropped_parts:
        print(
            f"mesh: the largest part was kept; {mesh.dropped_parts} others, {mesh.dropped_share:.1%} of all "
            "that is as dense, were left out"
        )
    if mesh.touches_walls:
        print(
            f"warning: a mesh should stand free of the walls of the grid. At level {mesh.level:g} it touches "
            "them: the background is painted there, and is part of it. A larger level may cut it off.",
            file=sys.stderr,
        )
    elif mesh.iou < _GOOD_IOU:
        print(
            "warning: a mesh should look like the run's pictures. Its silhouettes overlap theirs by "
            f"{mesh.iou:.2f} (1 is the same): they show fog, which no mesh can hold, or the level is far "
            "off. Try other levels, or a run with --background seamless or a larger --emptiness_weight.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())

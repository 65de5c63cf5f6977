"""What a mesh is to be: its level, its size, its files; and how long a turntable. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sjc_debiased.options.command import MeshFormat, MeshOptions, OptionError
from voxnerf.settings import N_FACES, TEXTURE_SIZE

_FACES = (100, 10_000_000)
_TEXTURE = (64, 8192)
_FRAMES, _MOST_FRAMES = 24, 720


@dataclass(frozen=True)
class MeshSettings:
    """Say how a mesh is made.

    Attributes:
        level: density of the surface, per scene unit; None for the one that fits the pictures best.
        faces: at most so many triangles.
        texture: pixels of the texture's sides; 0 for colors of vertices alone.
        formats: of the files.
    """

    level: float | None = None
    faces: int = N_FACES
    texture: int = TEXTURE_SIZE
    formats: tuple[MeshFormat, ...] = ("glb",)

    @property
    def form(self) -> dict:
        """Return what makes another mesh, and not only another file of it."""
        return {name: value for name, value in asdict(self).items() if name != "formats"}


DEFAULT_MESH = MeshSettings()


def settings_of(options: MeshOptions) -> MeshSettings:
    """Return the settings of the mesh that a run's options ask for.

    Raises:
        OptionError: an option is out of range, the turntable's too.
    """
    if not 0 < options.turntable <= _MOST_FRAMES or options.turntable % _FRAMES:
        raise OptionError(
            f"--turntable must be a multiple of {_FRAMES} from {_FRAMES} to {_MOST_FRAMES}, as contact "
            f"sheet and mesh take some of its frames. It is {options.turntable}. Choose another."
        )
    return mesh_settings(options.mesh_level, options.mesh_faces, options.mesh_texture, options.mesh)


def mesh_settings(
    level: str, faces: int, texture: int, formats: Sequence[MeshFormat], prefix: str = "--mesh."
) -> MeshSettings:
    """Return the settings that options ask for.

    Args:
        level: "auto" or a number. prefix: of the options' names, for the messages.

    Raises:
        OptionError: an option is out of range.
    """
    chosen = None
    if level != "auto":
        try:
            chosen = float(level)
        except ValueError:
            chosen = math.nan
        if not (math.isfinite(chosen) and chosen > 0):
            raise OptionError(
                f"{prefix}level must be auto or a positive number. It is {level}. Choose a density per scene "
                "unit: those of objects are about 1 to 20."
            )
    for name, value, (least, most) in (("faces", faces, _FACES), ("texture", texture, _TEXTURE)):
        if not least <= value <= most and not (name == "texture" and value == 0):
            zero = ", or 0 for colors of vertices" if name == "texture" else ""
            raise OptionError(
                f"{prefix}{name} must be between {least} and {most}{zero}. It is {value}. Choose another."
            )
    if not formats:
        raise OptionError("a mesh needs a format. None was given. Name one or more of glb, obj and ply.")
    return MeshSettings(chosen, faces, texture, tuple(dict.fromkeys(formats)))

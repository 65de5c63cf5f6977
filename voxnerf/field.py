"""The contract of a field: what the method, the pictures and the export ask of a scene, whatever holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from voxnerf.cameras import Camera
from voxnerf.settings import EMPTINESS_SCALE, N_FACES, TEXTURE_SIZE, Kernel

if TYPE_CHECKING:
    from voxnerf.mesh import Mesh
    from voxnerf.snapshot import Snapshot

BACKGROUND_DIST = 10.0


@dataclass(frozen=True)
class Rendering:
    """Hold one rendered view.

    Attributes:
        latent: [1, channels, height, width]; the colors, if the field is one of RGB.
        depth: [height, width], expected distance along the ray; the background counts as 10.
        opacity: [height, width], 1 - what is left for the background.
        emptiness: scalar, mean of log(1 + emptiness_scale * w) over all samples x rays.
        orientation: scalar, how far what is seen turns away from the camera; None of a field without normals.
        roughness: scalar, mean of 1 - cos of the angle between the normals at an edge's two ends; None of a
            field without a surface.
    """

    latent: Float[Tensor, "1 c h w"]
    depth: Float[Tensor, "h w"]
    opacity: Float[Tensor, "h w"]
    emptiness: Float[Tensor, ""]
    orientation: Float[Tensor, ""] | None = None
    roughness: Float[Tensor, ""] | None = None

    def detached(self) -> Rendering:
        """Return the same without gradient."""
        return replace(self, **{name: t.detach() for name, t in vars(self).items() if t is not None})


class KernelError(ValueError):
    """A kernel that was asked for cannot draw a field.

    Attributes:
        why: the reason alone: the rule, and what was received.
    """

    def __init__(self, kernel: Kernel, why: str):
        remedy = "Use another device" if kernel == "torch" else "Use the kernel torch or auto"
        super().__init__(f"the {kernel} kernel cannot draw this field: {why} {remedy}.")
        self.why = why


class Field(Protocol):
    """An `nn.Module` that holds one object and what is behind it.

    Attributes:
        rgb: whether its colors are RGB in [-1, 1]; if not, they are those of the 2D model's pictures, which
            are latents where that model has an autoencoder.
        kernel: which of `kernels` draws it (`trial.usable_kernel` finds one that works); "auto" is the first
            that fits. No part of its state.
    """

    rgb: bool
    kernel: Kernel

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Return what there is to draw it with, that of its device first; "torch" draws every field."""
        ...

    def render(self, camera: Camera, emptiness_scale: float = EMPTINESS_SCALE) -> Rendering:
        """Return one view, differentiable in the parameters; one ray per pixel of the camera."""
        ...

    def render_fine(self, camera: Camera, subpixels: int = 4, upscale: int = 1) -> Rendering:
        """Return one view for the eye: of `upscale` times the camera's size, without gradient or emptiness.

        Args:
            subpixels: rays along each side of a camera's pixel, over which the view is averaged.
        """
        ...

    def before_plain_wall(self) -> Field:
        """Return the object as it is, before a background of one color, the mean of its own."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what is optimised, and saved, under these names."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Take over the tensors of `named_parameters`, on the device on which it is.

        Raises:
            RuntimeError: they are another field's.
        """
        ...

    def parameter_groups(self, lr: float, background_lr: float) -> list[dict]:
        """Return the optimiser's groups, each with its step size; together they are all parameters."""
        ...

    def to_mesh(
        self,
        snapshots: Sequence[Snapshot],
        level: float | None = None,
        n_faces: int = N_FACES,
        texture_size: int = TEXTURE_SIZE,
    ) -> Mesh:
        """Return the object's surface with its colors.

        Args:
            snapshots: views that give the colors (`mesh_snapshots`).
            level: density of the surface, where it has one to choose; None chooses it.
            n_faces: at most so many triangles.
            texture_size: pixels of the texture's sides; 0 for colors of vertices alone.

        Raises:
            NoMeshError: there is no object.
        """
        ...

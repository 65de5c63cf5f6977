"""Magic3D's second stage (arXiv:2211.10440): a surface instead of a density, drawn by a rasteriser.

Numbers and start are those of threestudio's refine stage; `docs/frameworks.md` says what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnerf.cameras import Camera
from voxnerf.field import BACKGROUND_DIST, EMPTINESS_SCALE, N_FACES, TEXTURE_SIZE, Rendering
from voxnerf.grid import VoxelGrid
from voxnerf.mesh import Mesh, paint
from voxnerf.raster import edge_gradients, project, rasterize
from voxnerf.rays import camera_rays
from voxnerf.settings import Kernel
from voxnerf.snapshot import Snapshot
from voxnerf.surface import NoMeshError, find_solid, smoothed
from voxnerf.tetra import march_tetrahedra, on_border, tet_grid

GEOMETRY_LR = 0.01
_MARGIN = 0.1  # of the object's size, on each side
_OUTSIDE = 0.1  # the least value at the border of the box, where nothing may be inside
_GAP = 2.0  # cells, or pixels, by which what is before another thing is nearer
_SUBPIXELS = 2  # along each side of a pixel; the picture is hard, its mean is not


class TetraField(nn.Module):
    """Hold one object as a surface in a grid of tetrahedra; a `Field`.

    The surface lies where linearly interpolated values are 0. It is closed, opaque, and shows the colors of
    the coarse field where it lies, lit by the camera's light if that field is one of RGB.

    Attributes:
        sdf: [v], negative inside; at the start about the distance from the surface in cells, within [-1, 1].
        deformation: [v, 3]; a vertex of the grid is moved by tanh(deformation) / 2 cells.
        coarse: the field that it started from. Its colors and background go on learning; its density stays.
        box: corners of the grid, [2, 3].
        level: density of the coarse field where the surface began, per scene unit.
    """

    kernel: Kernel = "torch"
    kernels: tuple[Kernel, ...] = ("torch",)  # its rasteriser

    def __init__(self, coarse: VoxelGrid, box: Tensor, sdf: Tensor, level: float):
        """Start from values at the vertices of a grid.

        Args:
            box: [2, 3]. sdf: [(n + 1)^3] for n cells along each side of the box.
        """
        super().__init__()
        self.coarse, self.rgb = deepcopy(coarse), coarse.rgb
        for kept in (self.coarse.density, self.coarse.log_density_scale):
            kept.requires_grad_(False)
        self.resolution, self.level = round(len(sdf) ** (1 / 3)) - 1, level
        self.sdf = nn.Parameter(sdf.detach().clone())
        self.deformation = nn.Parameter(sdf.new_zeros(len(sdf), 3))
        places, tets = tet_grid(self.resolution)
        self.box: Tensor
        self.places: Tensor
        self.tets: Tensor
        self.border: Tensor
        self.register_buffer("box", box.clone(), persistent=False)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("tets", tets, persistent=False)
        self.register_buffer("border", on_border(self.resolution), persistent=False)
        self.to(sdf.device)

    @staticmethod
    @torch.no_grad()
    def from_grid(
        grid: VoxelGrid, snapshots: Sequence[Snapshot], resolution: int, level: float | None = None
    ) -> TetraField:
        """Start from the object in a density, in a box that is a tenth larger on each side.

        The values are the density's before its softplus, a little blurred, over those of the level, in units
        of their median change along an edge that the surface crosses.

        Args:
            snapshots: the views that decide the level (`mesh_snapshots`).
            resolution: cells along each side of the box.
            level: density of the surface; by default the one that `find_solid` finds.

        Raises:
            NoMeshError: the density has no surface that is an object.
        """
        solid = find_solid(grid, snapshots, level)
        half, device = grid.config.half_size, grid.density.device
        voxels = np.argwhere(solid.inside)[:, ::-1]  # x, y, z
        box = np.stack([voxels.min(0), voxels.max(0) + 1]) * (2 * half / grid.config.resolution) - half
        box = torch.as_tensor(box + _MARGIN * np.array([[-1], [1]]) * (box[1] - box[0]), dtype=torch.float32)
        places, tets = tet_grid(resolution)
        where = (box[0] + places * (box[1] - box[0])) / half
        signed = torch.as_tensor(solid.signed, dtype=torch.float32)[None, None]
        sdf = -F.grid_sample(signed, where[None, None, None], padding_mode="border", align_corners=False)
        along_edges = sdf.flatten()[tets[:, :2]]
        crossed = (along_edges < 0).sum(1) == 1
        if not crossed.any():
            raise NoMeshError(
                f"a surface must lie within the grid of tetrahedra. At level {solid.level:.3g} none does. "
                "Choose another level."
            )
        change = along_edges[crossed].diff(dim=1).abs().median()
        sdf = (sdf.flatten() / change).clamp(-1, 1)
        return TetraField(grid, box.to(device), sdf.to(device), solid.level)

    def surface(self) -> tuple[Tensor, Tensor]:
        """Return the surface: vertices [n, 3] in scene units, with gradient, and faces int64 [m, 3].

        Raises:
            NoMeshError: nothing is left inside.
        """
        size = self.box[1] - self.box[0]
        offsets = self.deformation.tanh() / (2 * self.resolution)
        values = torch.where(self.border, self.sdf.clamp(min=_OUTSIDE), self.sdf)
        vertices, faces = march_tetrahedra(values, self.box[0] + (self.places + offsets) * size, self.tets)
        if not len(faces):
            raise NoMeshError(
                "a surface must be left. This one has shrunk to nothing. Let it move less: fewer steps, or a "
                "smaller weight of the roughness."
            )
        return vertices, faces

    def render(self, camera: Camera, emptiness_scale: float = EMPTINESS_SCALE) -> Rendering:
        """Render one view, of the mean of 2 x 2 subpixels. A surface has no emptiness: it is 0."""
        vertices, faces = self.surface()
        seen = F.avg_pool2d(self._draw(camera.resized(_SUBPIXELS), vertices, faces)[None], _SUBPIXELS)
        shown = self._picture(seen), seen[0, -2], seen[0, -1], seen.new_zeros(())
        return Rendering(*shown, roughness=roughness(vertices, faces))

    @torch.no_grad()
    def render_fine(self, camera: Camera, subpixels: int = 4, upscale: int = 1) -> Rendering:
        """Render one view for the eye."""
        fine = self._draw(camera.resized(subpixels), *self.surface())[None]
        size = camera.height * upscale, camera.width * upscale
        small = F.interpolate(fine, size, mode="bilinear", antialias=True)
        return Rendering(self._picture(small), small[0, -2], small[0, -1], small.new_tensor(float("nan")))

    def before_plain_wall(self) -> TetraField:
        """Return the object before its background's mean."""
        alone = copy(self)
        alone._modules = {"coarse": self.coarse.before_plain_wall()}
        return alone

    def parameter_groups(self, lr: float, background_lr: float) -> list[dict]:
        """Return the optimiser's groups: the geometry learns at a rate of its own (threestudio's 0.01)."""
        return [
            {"params": [self.sdf, self.deformation], "lr": GEOMETRY_LR},
            {"params": [self.coarse.color], "lr": lr},
            {"params": [self.coarse.background], "lr": background_lr},
        ]

    @torch.no_grad()
    def to_mesh(
        self,
        snapshots: Sequence[Snapshot],
        level: float | None = None,
        n_faces: int = N_FACES,
        texture_size: int = TEXTURE_SIZE,
    ) -> Mesh:
        """Return the largest piece of the surface with its colors; it has no level to choose."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        vertices, faces = (part.cpu().numpy() for part in self.surface())
        ends = np.concatenate([faces[:, :2], faces[:, 1:]]).T
        links = coo_array((np.ones(ends.shape[1]), ends), shape=(len(vertices),) * 2)
        n_pieces, piece = connected_components(links, directed=False)
        sizes = np.bincount(piece[faces[:, 0]], minlength=n_pieces)
        kept = piece[faces[:, 0]] == sizes.argmax()
        used, faces = np.unique(faces[kept], return_inverse=True)
        vertices, faces = smoothed(vertices[used], faces.reshape(-1, 3), n_faces)
        # By their areas: slivers, which this grid makes, have any normal.
        normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(faces)).numpy()
        edge = float((self.box[1] - self.box[0]).max() / self.resolution)
        dropped = n_pieces - 1, float(1 - kept.mean())
        return paint(vertices, normals, faces, snapshots, edge, texture_size, self.level, *dropped)

    def _picture(self, seen: Tensor) -> Tensor:
        """Return the colors of what `_draw` made [1, channels + 2, h, w], as a `Rendering` has them."""
        return 2 * seen[:, :-2] - 1 if self.rgb else seen[:, :-2]

    def _draw(self, camera: Camera, vertices: Tensor, faces: Tensor) -> Tensor:
        """Return what a camera sees: colors, depth and opacity, [channels + 2, height, width]."""
        shape = camera.height, camera.width
        pixels, z = project(camera, vertices)
        shown = rasterize(pixels, z, faces, *shape)
        points = shown.interpolate(vertices, faces)
        origin, directions = camera_rays(camera, vertices.device)
        dist = (points - origin).norm(dim=1)
        background = self.coarse.background_at(directions)
        behind = background.new_tensor([BACKGROUND_DIST, 0.0]).expand(len(directions), 2)
        normal = None
        if camera.light:
            normal = F.normalize(shown.interpolate(vertex_normals(vertices, faces), faces))
        color = self.coarse.color_on(points, normal, camera.light)
        seen = torch.cat([color, dist[:, None], torch.ones_like(dist)[:, None]], 1)
        picture = torch.cat([background, behind], 1).index_put((shown.covered,), seen)
        cell = float((self.box[1] - self.box[0]).max() / self.resolution)
        pixel = float(np.linalg.norm(camera.c2w[:3, 3])) / camera.intrinsics[0, 0]
        gap = _GAP * max(cell, pixel)
        return edge_gradients(picture.T.reshape(-1, *shape), shown, pixels, z, faces, gap)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the normals at vertices, unit length, [n, 3]: the mean of the faces' by their areas."""
    a, b, c = vertices[faces].unbind(1)
    of_faces = torch.linalg.cross(b - a, c - a)[:, None].expand(-1, 3, -1)
    return F.normalize(
        torch.zeros_like(vertices).index_add(0, faces.flatten(), of_faces.flatten(0, 1)), dim=1
    )


def roughness(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the normal consistency of a closed surface, scalar.

    mean over edges (i, j) of 1 - n_i . n_j, with the normals at vertices; 0 for a plane. Source:
    threestudio's loss of that name. In a closed surface every edge is that of two faces, so that faces count
    it evenly.
    """
    normals = vertex_normals(vertices, faces)[faces]
    return (1 - (normals * normals.roll(1, 1)).sum(2)).mean()

"""A rasteriser in plain torch: which triangle does each pixel show, where on it, and how that changes.

The picture is hard, one triangle for each pixel. Within a triangle autograd differentiates it; how the
outlines move is what `edge_gradients` adds (Rasterized Edge Gradients, arXiv:2405.02508).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxnerf.cameras import Camera

_NEAR = 0.01  # of what is shown, scene units before the camera
_CANDIDATES = 2**20  # pixels x triangles that are tried at a time, which bounds the memory
_NOTHING = 2**63 - 1


@dataclass(frozen=True)
class Fragments:
    """What the pixels of a picture show.

    Attributes:
        face: int64 [height, width], the number of the nearest triangle, -1 where there is none.
        shares: [k, 3], of the triangle's corners at the k pixels that show one, in row-major order;
            perspective-correct, they add up to 1, and carry the gradient to the corners' places.
        z: [k], distance along the viewing axis.
    """

    face: Tensor
    shares: Tensor
    z: Tensor

    @property
    def covered(self) -> Tensor:
        """Return the flat numbers of the pixels that show a triangle, int64 [k]."""
        return (self.face.flatten() >= 0).nonzero()[:, 0]

    def corners(self, faces: Tensor) -> Tensor:
        """Return the three vertices of what each of the k pixels shows, int64 [k, 3]."""
        return faces[self.face.flatten()[self.covered]]

    def interpolate(self, values: Tensor, faces: Tensor) -> Tensor:
        """Return a vertex attribute [n, c] at the k pixels, [k, c]."""
        return _weighted(self.shares, values[self.corners(faces)])


def project(camera: Camera, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return where points [n, 3] appear, (column, row) [n, 2], and how far ahead they are, [n].

    As `Camera.project`, with gradient. The place of what is not ahead means nothing, but is finite.
    """
    matrix = torch.as_tensor(camera.world_to_pixels, dtype=points.dtype).to(points.device)
    column, row, z = (points @ matrix[:, :3].T + matrix[:, 3]).unbind(1)
    return torch.stack([column, row], 1) / z.clamp(min=_NEAR)[:, None], z


def rasterize(pixels: Tensor, z: Tensor, faces: Tensor, height: int, width: int) -> Fragments:
    """Find the nearest triangle at every pixel centre, and where on it the pixel is.

    Both sides of a triangle are shown. Triangles that reach behind the camera are left out. Triangles that
    share an edge leave no gap between them. The order of the faces does not matter, but where two have one
    depth to the last bit of float32: there the first is shown.

    Args:
        pixels: [n, 2], column and row of the vertices; pixel centres are whole numbers.
        z: [n], distance of the vertices along the viewing axis. faces: int64 [m, 3].
    """
    face = _nearest(pixels.detach(), z.detach(), faces, height, width)
    covered = (face >= 0).nonzero()[:, 0]
    corners = faces[face[covered]]
    areas = _areas(pixels[corners], _places(covered, width).to(pixels))
    over_z = areas / z[corners]
    shares = over_z / over_z.sum(1, keepdim=True)
    return Fragments(face.view(height, width), shares, areas.sum(1) / over_z.sum(1))


def edge_gradients(
    picture: Tensor, shown: Fragments, pixels: Tensor, z: Tensor, faces: Tensor, gap: float
) -> Tensor:
    """Return a picture as it is, with the gradient of where its outlines are added to the vertices.

    Between two neighbours l and r that show different triangles an outline may lie. With the gradient g of
    the loss, moving it along the line of the two by one pixel changes the loss by
        -q = -sum_channels (picture_r - picture_l) (g_l + g_r) / 2,
    which is given to the point that the moving one of the two shows (arXiv:2405.02508, Sec. 4). It moves
    - alone, where the other shows no triangle;
    - alone, where the other's triangle lies behind it too, at its own pixel, and not the other way round;
    - if neither covers the other's pixel: the nearer one, where it is nearer by more than `gap`. The source
      has them adjacent, on one surface; here those that are less apart are, and nothing moves there.
    Where each covers the other's pixel, they cut through each other; that is left out.

    Args:
        picture: [channels, height, width], made of what `shown` shows.
        pixels, z, faces: as `rasterize` had them.
        gap: scene units: more than what one surface, aslant, recedes from pixel to pixel.
    """
    channels, height, width = picture.shape
    corners = shown.corners(faces)
    held = shown.shares.detach()
    # What stays in place on the surface, seen in perspective.
    in_front = _weighted(held, z[corners][..., None])
    places = _weighted(held, pixels[corners] * z[corners][..., None]) / in_front
    moving = picture.new_zeros(height * width, 2).index_put((shown.covered,), places.to(picture))
    with torch.no_grad():
        depth = picture.new_full((height * width,), torch.inf).index_put(
            (shown.covered,), shown.z.to(picture)
        )
        movers = [_movers(shown.face, depth.view(height, width), pixels, faces, gap, axis) for axis in (1, 0)]
    return _EdgeGradient.apply(picture, moving.view(height, width, 2), *movers[0], *movers[1])


class _EdgeGradient(torch.autograd.Function):
    """The picture, forward; backward, the push on the places of what moves."""

    @staticmethod
    def forward(ctx, picture, moving, *movers):
        ctx.save_for_backward(picture, *movers)
        return picture.clone()

    @staticmethod
    def backward(ctx, *grads):
        (grad,), (picture, *movers) = grads, ctx.saved_tensors
        push = grad.new_zeros(*grad.shape[1:], 2)
        for axis, coordinate in ((2, 0), (1, 1)):
            n = picture.shape[axis] - 1
            first, second = movers[2 * coordinate : 2 * coordinate + 2]
            step = picture.diff(dim=axis)
            both = grad.narrow(axis, 0, n) + grad.narrow(axis, 1, n)
            q = (step * both / 2).sum(0)
            along = push[..., coordinate]
            along.narrow(axis - 1, 0, n).sub_(q * first)
            along.narrow(axis - 1, 1, n).sub_(q * second)
        return grad, push, None, None, None, None


def _movers(
    face: Tensor, depth: Tensor, pixels: Tensor, faces: Tensor, gap: float, axis: int
) -> tuple[Tensor, Tensor]:
    """Return of all neighbours along an axis whether the first one moves, and whether the second.

    Args:
        face: [height, width]. depth: [height, width], infinite where there is no triangle.
    """
    width, n = face.shape[1], face.shape[axis] - 1
    numbers = torch.arange(face.numel(), device=face.device).view_as(face)
    sides = numbers.narrow(axis, 0, n), numbers.narrow(axis, 1, n)
    differ = face.narrow(axis, 0, n) != face.narrow(axis, 1, n)
    first, second = (side[differ] for side in sides)
    face, depth = face.flatten(), depth.flatten()

    def reaches(one: Tensor, other: Tensor) -> Tensor:
        corners = pixels[faces[face[one].clamp(min=0)]]
        areas = _areas(corners, _places(other, width).to(pixels))
        beyond = (areas > 0).all(1) | (areas < 0).all(1)  # what lies on the edge of two is in neither
        return beyond & (face[one] >= 0)

    first_reaches, second_reaches = reaches(first, second), reaches(second, first)
    apart = ~first_reaches & ~second_reaches
    moves = []
    for mine, its, i_reach, it_reaches in (
        (first, second, first_reaches, second_reaches),
        (second, first, second_reaches, first_reaches),
    ):
        before = apart & (depth[mine] + gap < depth[its])
        alone = (face[mine] >= 0) & (face[its] < 0)
        found = alone | ((face[its] >= 0) & ((it_reaches & ~i_reach) | before))
        moves.append(torch.zeros_like(differ).masked_scatter(differ, found))
    return moves[0], moves[1]


def _nearest(pixels: Tensor, z: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """Return the number of the nearest triangle at every pixel, -1 where there is none, [height * width].

    What wins is the smallest of 64 bits: above, the depth's, as float32; below, the triangle's number.
    """
    keys = torch.full((height * width,), _NOTHING, device=faces.device)
    ahead = (z[faces] > _NEAR).all(1)
    corners = pixels[faces].where(ahead[:, None, None], 0)
    end = pixels.new_tensor([width, height])
    low = corners.amin(1).ceil().clamp(min=0).minimum(end).long()
    high = (corners.amax(1).floor() + 1).clamp(min=0).minimum(end).long()
    extent = (high - low).clamp(min=0)
    counts = extent.prod(1) * ahead
    until = counts.cumsum(0)
    total = int(until[-1]) if len(faces) else 0
    for start in range(0, total, _CANDIDATES):
        nth = torch.arange(start, min(start + _CANDIDATES, total), device=faces.device)
        which = torch.searchsorted(until, nth, right=True)
        nth = nth - (until - counts)[which]
        across = extent[which, 0]
        pixel = (low[which, 1] + nth // across) * width + low[which, 0] + nth % across
        areas = _areas(corners[which], _places(pixel, width).to(corners))
        inside = ((areas >= 0).all(1) | (areas <= 0).all(1)) & (areas.sum(1) != 0)
        which, pixel, areas = which[inside], pixel[inside], areas[inside]
        depth = areas.sum(1) / (areas / z[faces[which]]).sum(1)
        key = depth.float().view(torch.int32).long() << 32 | which
        keys.scatter_reduce_(0, pixel, key, "amin")
    return torch.where(keys == _NOTHING, -1, keys & 0xFFFFFFFF)


def _areas(corners: Tensor, places: Tensor) -> Tensor:
    """Return twice the signed areas between places [k, 2] and the sides opposite each corner, [k, 3].

    Seen from both its sides, an edge has exactly opposite areas: no pixel falls between two triangles.
    """
    x, y = (corners - places[:, None]).unbind(-1)
    return x.roll(-1, 1) * y.roll(-2, 1) - x.roll(-2, 1) * y.roll(-1, 1)


def _places(numbers: Tensor, width: int) -> Tensor:
    """Return column and row of pixels by their flat numbers, [k, 2]."""
    return torch.stack([numbers % width, numbers // width], 1)


def _weighted(shares: Tensor, of_corners: Tensor) -> Tensor:
    """Return the sum of shares [k, 3] times values [k, 3, c], [k, c]."""
    return (shares[..., None] * of_corners).sum(1)

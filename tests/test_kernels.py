"""Which kernel renders a grid: what fits, what works, and what is said where it does not."""

import subprocess
import sys

import pytest
import torch

from tests.kernels import KERNELS, needs_interpreter, on
from tests.test_render import some_grid
from voxnerf import march_cpu, march_cpu_voxels
from voxnerf.cameras import orbit_camera
from voxnerf.grid import VoxelGrid
from voxnerf.march import kernel_for
from voxnerf.render import render
from voxnerf.trial import usable_kernel


def fail(error):
    def failing(*_):
        raise error

    return failing


def forget(monkeypatch, package):
    """Let a package be missing, and ours that imports it not imported yet."""
    import voxnerf

    monkeypatch.setitem(sys.modules, package, None)
    name = {"numba": "march_cpu_places", "triton": "march_triton"}[package]
    monkeypatch.delitem(sys.modules, f"voxnerf.{name}", raising=False)
    monkeypatch.delattr(voxnerf, name, raising=False)


def nodes_of(tensor):
    """Return the names of the steps that a tensor came by."""
    waiting, names = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        names.add(node.name())
        waiting += [parent for parent, _ in node.next_functions if parent]
    return names


def test_the_fused_kernel_is_what_auto_means_here():
    grid = some_grid()
    assert kernel_for(grid) == "numba"
    assert "_NumbaMarchBackward" in nodes_of(render(grid, orbit_camera(10, 10, 4, 4)).emptiness)


UNFIT = {
    "no numba": "No module named|import of numba halted",
    "five channels": "up to 4 channels. Received 5",
    "one voxel": "2 to 1625 voxels along an axis. Received 1",
    "double": "float32. Received torch.float64",
}


@pytest.mark.parametrize("why", UNFIT)
def test_where_the_fused_kernel_does_not_fit_auto_takes_torch_and_numba_is_refused(monkeypatch, why):
    if why == "no numba":
        forget(monkeypatch, "numba")
    own = {"five channels": {"channels": 5}, "one voxel": {"resolution": 1}}
    grid = some_grid(**own.get(why, {}))
    grid = grid.double() if why == "double" else grid
    camera = orbit_camera(10, 10, 4, 4)
    assert "_NumbaMarchBackward" not in nodes_of(render(grid, camera).emptiness)
    kernel, reason = usable_kernel(grid)
    assert kernel == "torch"
    assert "numba cannot" in reason
    refused = rf"numba kernel cannot draw this field: .*({UNFIT[why]}).* Use the kernel torch or auto"
    with pytest.raises(ValueError, match=refused):
        render(on("numba", grid), camera)
    with pytest.raises(ValueError, match=refused):
        usable_kernel(grid, "numba")


@needs_interpreter
def test_what_triton_refuses(monkeypatch):
    from voxnerf import march_triton

    color = torch.empty(1, 4, 813, 813, 813, device="meta")
    assert "Received 2,149,471,188" in march_triton.refusal(color[:, :1], color)
    assert march_triton.refusal(color[:, :1], color[..., 1:]) is None
    monkeypatch.setattr(march_triton, "JITFunction", type(march_triton._forward))  # no interpreter
    with pytest.raises(ValueError, match="triton kernel .* runs on CUDA. Received a grid on cpu"):
        usable_kernel(some_grid(), "triton")


def test_a_name_that_is_no_kernel_is_refused():
    with pytest.raises(ValueError, match="numba, triton, torch. Received 'cuda'"):
        usable_kernel(some_grid(), "cuda")
    with pytest.raises(ValueError, match="torch, numba and triton. Received 'cuda'"):
        render(on("cuda", some_grid()), orbit_camera(10, 10, 4, 4))


@KERNELS
def test_three_channels_are_what_torch_makes_of_them(kernel):
    found = []
    for path in ("torch", kernel):
        grid = on(path, some_grid(resolution=4, channels=3))
        out = render(grid, orbit_camera(40, 20, 5, 5))
        assert out.latent.shape == (1, 3, 5, 5)
        (out.latent.sin().sum() + out.depth.square().mean() + 50 * out.emptiness).backward()
        found.append([out.latent, out.depth, *(p.grad for p in grid.parameters())])
    for expected, ours in zip(*found):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@KERNELS
def test_the_trial_names_the_kernel_and_leaves_the_grid_as_it_was(kernel):
    grid, untouched = some_grid(resolution=3), some_grid(resolution=3)
    grid.density.grad = torch.full_like(grid.density, 3.0)
    with torch.no_grad():
        found, reason = usable_kernel(grid, kernel)
    assert found == kernel
    assert reason.startswith(f"{kernel}, the ")
    assert grid.kernel == "auto"
    assert all(map(torch.equal, grid.parameters(), untouched.parameters()))
    assert (grid.density.grad == 3).all()
    assert [p.grad is None for p in grid.parameters()] == [False, True, True, True]


def test_auto_tries_the_fused_kernel_forward_and_backward(monkeypatch):
    passes = []

    def seen(name, function):
        return lambda *arguments: passes.append(name) or function(*arguments)

    monkeypatch.setattr(march_cpu, "march_forward", seen("forward", march_cpu.march_forward))
    backward = march_cpu_voxels.voxel_gradients
    monkeypatch.setattr(march_cpu_voxels, "voxel_gradients", seen("backward", backward))
    assert usable_kernel(some_grid()) == ("numba", "numba, the fused CPU kernel")
    assert passes == ["forward", "backward"]


@pytest.mark.parametrize(
    ("module", "name"), [(march_cpu, "march_forward"), (march_cpu_voxels, "voxel_gradients")]
)
def test_where_the_fused_kernel_fails_auto_says_why_in_one_line_and_takes_torch(monkeypatch, module, name):
    error = RuntimeError("Failed in nopython mode\n" + "  a line of code\n" * 100 + "\nthe real reason")
    monkeypatch.setattr(module, name, fail(error))
    kernel, reason = usable_kernel(some_grid())
    assert kernel == "torch"
    assert reason.startswith("torch, the plain path, because numba cannot: it must work on this machine. It")
    assert "RuntimeError: Failed in nopython mode" in reason
    assert reason.endswith("the real reason.")
    assert "\n" not in reason and len(reason) < 500
    with pytest.raises(ValueError, match="numba kernel .* the real reason.* Use the kernel torch or auto"):
        usable_kernel(some_grid(), "numba")


def test_results_that_are_not_finite_are_a_failure(monkeypatch):
    monkeypatch.setattr(march_cpu_voxels, "voxel_gradients", lambda *_: float("nan"))
    kernel, reason = usable_kernel(some_grid())
    assert kernel == "torch"
    assert "must be finite. Not finite: " in reason
    assert "the gradient of log_density_scale" in reason


def test_where_torch_fails_too_there_is_no_kernel(monkeypatch):
    monkeypatch.setattr(march_cpu, "march_forward", fail(RuntimeError("no room")))
    monkeypatch.setattr("voxnerf.march._march_torch", fail(MemoryError("none left")))
    with pytest.raises(ValueError, match="torch kernel .* MemoryError: none left. Use another device"):
        usable_kernel(some_grid())


@needs_interpreter
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable"),
        subprocess.CalledProcessError(1, ["gcc", "/tmp/x/cuda_utils.c"]),  # Python.h is not there
    ],
)
def test_what_triton_needs_is_said_where_it_cannot_be_built(monkeypatch, error):
    from voxnerf import march_triton

    grid = some_grid()
    monkeypatch.setattr(march_triton, "march_forward", fail(error))
    with pytest.raises(ValueError, match=f"{type(error).__name__}.*C compiler and Python's headers"):
        usable_kernel(grid, "triton")
    monkeypatch.setattr(VoxelGrid, "kernels", ("triton", "torch"))  # as on CUDA
    kernel, reason = usable_kernel(grid)
    assert kernel == "torch"
    assert "because triton cannot" in reason and "Python's headers" in reason


def test_without_triton_a_gpu_renders_with_torch(monkeypatch):
    forget(monkeypatch, "triton")
    monkeypatch.setattr(VoxelGrid, "kernels", ("triton", "torch"))
    kernel, reason = usable_kernel(some_grid())
    assert kernel == "torch"
    assert "triton must be installed" in reason


def test_a_copy_of_a_grid_has_its_kernel_and_a_checkpoint_does_not():
    from copy import deepcopy

    grid = on("torch", some_grid())
    assert kernel_for(deepcopy(grid)) == "torch"
    assert "kernel" not in grid.state_dict()


def test_each_function_that_numba_compiles_is_told_once():
    """It is what the bar counts; a second signature, a second call and other people's functions are not."""
    from numba import njit

    from voxnerf.compiling import each_compiled, n_functions

    def ours(x):
        return x + 1

    def theirs(x):
        return x + 2

    ours.__module__ = "voxnerf.made_up"
    told, compiled, foreign = [], njit(ours), njit(theirs)
    with each_compiled(lambda: told.append(1)):
        assert compiled(1) + compiled(2) + compiled(1.5) + foreign(1) == 10.5
    assert len(told) == 1
    assert 25 <= n_functions() <= 40
    njit(ours)(1)
    assert len(told) == 1, "nothing is told outside"

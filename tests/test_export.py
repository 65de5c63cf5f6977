"""The mesh of a run folder: its command, its files, its refusals, and the check that knows a crate."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from scripts.check_run import check_mesh
from sjc_debiased import export
from sjc_debiased.folder.checkpoints import save_checkpoint
from sjc_debiased.folder.runs import FINISHED, locked, sha256, write_json
from sjc_debiased.models.choose import fingerprint
from tests.mesh_fields import ball, decode, painted
from voxnerf.grid import VoxelGrid
from voxnerf.look import read_glb
from voxnerf.mesh import extract_mesh
from voxnerf.mesh_files import mesh_files
from voxnerf.snapshot import mesh_snapshots, turn_cameras

SMALL = ("--texture", "64")


def write_run(folder, grid, model, done=60):
    """Write a run folder of 60 steps with this field after `done` of them."""
    folder.mkdir()
    options = {
        **{"prompt": "a ball", "n_steps": 60, "model": str(model), "fingerprint": fingerprint(str(model))},
        **{"resolution": grid.config.resolution, "half_size": 1.0, "background": "seamless"},
    }
    write_json(folder / "options.json", {"resolved": options})
    save_checkpoint(folder, done, {f"grid.{name}": p for name, p in grid.named_parameters()})
    if done == 60:
        write_json(folder / FINISHED, {"mesh": {"settings": {"level": None, "faces": 20_000, "texture": 64}}})
    return folder


@pytest.fixture
def run(tmp_path, eps_folder):
    return write_run(tmp_path / "00000-run", ball(16), eps_folder)


def files_in(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name.startswith("mesh")}


def test_a_run_is_exported_into_its_folder_again_and_again(run, capsys):
    assert export.main([str(run), *SMALL]) == 0
    assert "IoU 0.9" in capsys.readouterr().out
    made = json.loads((run / "mesh.json").read_text())
    assert made["settings"] == {"level": None, "faces": 20_000, "texture": 64}
    assert made["files"] == {"mesh.glb": sha256(run / "mesh.glb")}
    assert (made["dropped_parts"], made["touches_walls"]) == (0, False)
    assert made["iou"] > 0.85
    saved = read_glb(run / "mesh.glb")
    assert len(saved.faces) == made["faces"]
    assert saved.texture_u8.shape == (64, 64, 3)
    before = files_in(run)
    assert export.main([str(run), *SMALL]) == 0
    assert files_in(run) == before


def test_other_settings_have_their_own_name(run):
    assert export.main([str(run), "--level", "6", "--faces", "500", "--texture", "0", "--format", "ply"]) == 0
    assert export.main([str(run), "--format", "obj"]) == 0
    names = {"mesh-level6-faces500-texture0.ply", "mesh-level6-faces500-texture0.json"}
    names |= {f"mesh-texture1024{end}" for end in (".obj", ".mtl", "_texture.png", ".json")}
    assert files_in(run).keys() == names
    assert json.loads(files_in(run)["mesh-level6-faces500-texture0.json"])["level"] == 6
    assert set(json.loads(files_in(run)["mesh-texture1024.json"])["files"]) == {
        n for n in names if "1024" in n and "json" not in n
    }


def test_a_run_that_made_its_mesh_by_other_settings_keeps_them_for_its_own(run):
    own = {"level": 6.0, "faces": 500, "texture": 64}
    write_json(run / FINISHED, {"mesh": {"settings": own}})
    assert export.main([str(run), "--level", "6", "--faces", "500", *SMALL]) == 0
    assert files_in(run).keys() == {"mesh.glb", "mesh.json"}
    before = files_in(run)
    assert export.main([str(run), "--faces", "500", *SMALL]) == 0
    assert files_in(run).keys() == {"mesh.glb", "mesh.json", "mesh-levelauto.glb", "mesh-levelauto.json"}
    assert {name: files_in(run)[name] for name in before} == before


def test_a_stopped_run_is_exported_under_the_number_of_its_steps(tmp_path, eps_folder):
    run = write_run(tmp_path / "00000-run", ball(16), eps_folder, done=30)
    assert export.main([str(run), "--texture", "0"]) == 0
    assert files_in(run).keys() == {"mesh-step000030-texture0.glb", "mesh-step000030-texture0.json"}


def test_what_a_person_changed_is_kept(run, capsys):
    export.main([str(run), *SMALL])
    ours = (run / "mesh.glb").read_bytes()
    for n in (1, 2):
        (run / "mesh.glb").write_bytes(b"painted over %d" % n)
        assert export.main([str(run), *SMALL]) == 0
        assert f"kept as mesh.kept-{n}.glb" in capsys.readouterr().out
        assert (run / "mesh.glb").read_bytes() == ours
    assert (run / "mesh.kept-1.glb").read_bytes() == b"painted over 1"
    assert (run / "mesh.kept-2.glb").read_bytes() == b"painted over 2"
    (run / "mesh.json").write_text("not ours")
    assert export.main([str(run), *SMALL]) == 0
    assert (run / "mesh.kept-3.glb").read_bytes() == ours, "without a record it is taken for a person's"


def test_formats_add_up(run):
    export.main([str(run), *SMALL])
    export.main([str(run), *SMALL, "--format", "ply", "obj"])
    files = json.loads((run / "mesh.json").read_text())["files"]
    assert files == {
        name: sha256(run / name)
        for name in ("mesh.glb", "mesh.ply", "mesh.obj", "mesh.mtl", "mesh_texture.png")
    }


def test_out_writes_elsewhere_and_overwrites_nothing(run, tmp_path, capsys):
    before = files_in(run)
    assert export.main([str(run), *SMALL, "--format", "obj", "--out", str(tmp_path / "cat.obj")]) == 0
    there = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert there.keys() == {"cat.obj", "cat.mtl", "cat_texture.png"}
    for name in there:
        for other in there.keys() - {name}:
            (tmp_path / other).unlink()
        assert export.main([str(run), *SMALL, "--format", "obj", "--out", str(tmp_path / "cat")]) == 2
        assert f"--out overwrites nothing. {tmp_path / name} is there." in capsys.readouterr().err
        for other, data in there.items():
            (tmp_path / other).write_bytes(data)
    assert export.main([str(run), "--out", str(tmp_path / "no" / "cat")]) == 2
    assert "--out must be in a folder" in capsys.readouterr().err
    assert export.main([str(run), "--out", str(tmp_path / "dog.obj")]) == 2
    assert "--format obj" in capsys.readouterr().err
    assert files_in(run) == before
    with locked(run):  # its folder is only read
        assert export.main([str(run), *SMALL, "--out", str(tmp_path / "pig")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--level", "0"], "--level must be auto or a positive number. It is 0."),
        (["--level", "-3"], "--level must be auto or a positive number. It is -3."),
        (["--level", "nan"], "--level must be auto or a positive number. It is nan."),
        (["--level", "inf"], "--level must be auto or a positive number. It is inf."),
        (["--level", "high"], "--level must be auto or a positive number. It is high."),
        (["--faces", "99"], "--faces must be between 100 and 10000000. It is 99."),
        (
            ["--texture", "63"],
            "--texture must be between 64 and 8192, or 0 for colors of vertices. It is 63.",
        ),
        (["--texture", "8193"], "--texture must be between 64 and 8192"),
        (["--texture", "-1"], "--texture must be between 64 and 8192"),
        (["--format"], "a mesh needs a format"),
        (["--format", "stl"], "stl"),
        (["--device", "tpu"], "--device must be auto"),
    ],
)
def test_bad_settings_are_refused_before_any_work(run, capsys, monkeypatch, arguments, message):
    def work(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("sjc_debiased.making.made.load_scene", work)
    try:
        code = export.main([str(run), *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in "".join(capsys.readouterr())


def test_bad_folders_are_refused(tmp_path, run, eps_folder, capsys):
    for place in (tmp_path / "nothing", tmp_path):
        assert export.main([str(place)]) == 2
        assert f"RUN must be a run folder. {place} has no readable options.json." in capsys.readouterr().err
    with locked(run):
        assert export.main([str(run)]) == 2
    assert "Another is at work" in capsys.readouterr().err
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    assert export.main([str(run)]) == 2
    assert "a mesh is made from a checkpoint" in capsys.readouterr().err
    gone = write_run(tmp_path / "00001-run", ball(16), eps_folder)
    options = json.loads((gone / "options.json").read_text())
    options["resolved"]["fingerprint"] = "another"
    write_json(gone / "options.json", options)
    assert export.main([str(gone)]) == 2
    assert "have changed since" in capsys.readouterr().err
    options["resolved"]["model"] = "someone/model"
    write_json(gone / "options.json", options)
    assert export.main([str(gone)]) == 2
    assert "someone/model, which made" in (said := capsys.readouterr().err)
    assert "the hub is silent. Connect" in said


def test_the_command_is_light_until_it_works():
    heavy = "('torch', 'diffusers', 'trimesh')"
    code = f"import sys, sjc_debiased.export; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Crates.


def test_a_crate_is_refused_with_the_way_out(tmp_path, eps_folder, capsys):
    run = write_run(tmp_path / "00000-run", painted(ball(16, radius=0.1), density=60.0), eps_folder)
    assert export.main([str(run), *SMALL]) == 2
    message = capsys.readouterr().err
    assert "free of the walls of the grid" in message
    for remedy in ("--background seamless", "--background_lr", "--emptiness_weight", "--level NUMBER"):
        assert remedy in message
    assert not files_in(run)
    assert export.main([str(run), *SMALL, "--level", "5"]) == 0
    assert "warning: a mesh should stand free of the walls" in capsys.readouterr().err
    assert json.loads((run / "mesh-level5.json").read_text())["touches_walls"]


def test_a_ball_in_fog_comes_with_a_warning(tmp_path, eps_folder, capsys):
    run = write_run(tmp_path / "00000-run", painted(ball(16), density=8.0), eps_folder)
    assert export.main([str(run), *SMALL]) == 0
    assert "they show fog" in capsys.readouterr().err
    made = json.loads((run / "mesh.json").read_text())
    assert not made["touches_walls"]
    assert made["dropped_share"] > 0.1


def test_a_run_of_a_crate_says_so_and_ends_well(command, monkeypatch, capsys):
    def solid(self, *arguments):
        original(self, *arguments)
        with torch.no_grad():
            self.density.fill_(30.0)

    original = VoxelGrid.__init__
    monkeypatch.setattr(VoxelGrid, "__init__", solid)
    code, (folder,) = command("--lr", "1e-6", "--n_steps", "4")
    assert code == 0
    assert "free of the walls of the grid" in json.loads((folder / FINISHED).read_text())["mesh"]["error"]
    assert "--background seamless" in capsys.readouterr().err
    assert not files_in(folder)


def test_a_run_makes_the_mesh_that_its_options_ask_for(command, solid_scenes):
    wanted = ("--mesh.level", "7", "--mesh.faces", "100", "--mesh.texture", "64")
    code, (folder,) = command("--mesh", "glb", "obj", *wanted, "--lr", "1e-6", "--n_steps", "4")
    assert code == 0
    made = json.loads((folder / FINISHED).read_text())["mesh"]
    assert made["level"] == 7
    assert made["faces"] <= 100
    assert made["files"] == {
        name: sha256(folder / name) for name in ("mesh.glb", "mesh.obj", "mesh.mtl", "mesh_texture.png")
    }
    assert json.loads((folder / "mesh.json").read_text()) == made
    before = files_in(folder)
    assert export.main([str(folder), "--level", "7", "--faces", "100", "--texture", "64"]) == 0
    assert files_in(folder).keys() == before.keys(), "the same settings are the run's own mesh"


@pytest.mark.parametrize(
    "wanted",
    [
        ("--mesh.level", "0"),
        ("--mesh.faces", "3"),
        ("--mesh.texture", "9"),
        ("--mesh",),
        ("--turntable", "36"),
        ("--turntable", "0"),
    ],
)
def test_a_run_refuses_settings_of_no_mesh(command, wanted):
    code, folders = command(*wanted)
    assert code == 2
    assert folders == []


# scripts/check_run.py.

SIZE = 24


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A ball's field, its mesh as it was saved, and its turntable."""
    grid = ball()
    views = list(mesh_snapshots(grid, decode, SIZE))
    return grid, saved(extract_mesh(grid, views, texture_size=128), tmp_path_factory), _turntable(views)


def saved(mesh, tmp_path_factory):
    path = tmp_path_factory.mktemp("mesh") / "mesh.glb"
    path.write_bytes(mesh_files(mesh, "mesh", "glb")["mesh.glb"])
    return read_glb(path)


def _turntable(views):
    return np.stack([view.image_u8 for view in views[: len(turn_cameras(SIZE))]])


def test_a_good_mesh_passes(checked):
    grid, mesh, frames = checked
    iou, error = check_mesh(mesh, grid, SIZE, frames)
    assert iou > 0.9
    assert error < 10


def _moved(mesh):
    return replace(mesh, vertices=mesh.vertices + np.float32(0.2))


def _metal(mesh):
    return replace(mesh, material={**mesh.material, "metallicFactor": 1})


def _plain(mesh):
    return replace(mesh, texture_u8=np.full_like(mesh.texture_u8, 127))


def _other_colors(mesh):
    return replace(mesh, texture_u8=mesh.texture_u8[..., ::-1].copy())


def _twice(mesh):
    both = np.concatenate([mesh.vertices, mesh.vertices * np.float32(0.5)])
    return replace(mesh, vertices=both, faces=np.concatenate([mesh.faces, mesh.faces + len(mesh.vertices)]))


def _open(mesh):
    return replace(mesh, faces=mesh.faces[: len(mesh.faces) * 9 // 10])


def _box(mesh, half):
    """A crate: the walls of the grid with this ball's texture on them."""
    box = trimesh.creation.box([2 * half] * 3).subdivide().subdivide().subdivide()
    uv = np.full((len(box.vertices), 2), 0.5)
    return replace(
        mesh, vertices=box.vertices.astype(np.float32), normals=box.vertex_normals, faces=box.faces, uv=uv
    )


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda mesh: _box(mesh, 1.0), "touches the walls"),
        (lambda mesh: _box(mesh, 1.0 - 1.2 / 16), "fills the grid"),
        (_moved, "silhouettes agree"),
        (_metal, "no metal"),
        (_plain, "a texture that shows something"),
        (_other_colors, "its colors are the turntable's"),
        (_twice, "one piece, not 2"),
        (_open, "closed"),
    ],
)
def test_a_spoiled_mesh_is_caught(checked, spoil, what):
    grid, mesh, frames = checked
    with pytest.raises(AssertionError, match=what):
        check_mesh(spoil(mesh), grid, SIZE, frames)


def test_a_crate_that_a_level_by_hand_made_is_caught(tmp_path_factory):
    grid = painted(ball(), density=8.0)
    views = list(mesh_snapshots(grid, decode, SIZE))
    crate = extract_mesh(grid, views, level=4.0, texture_size=64)
    assert crate.touches_walls
    with pytest.raises(AssertionError, match="touches the walls"):
        check_mesh(saved(crate, tmp_path_factory), grid, SIZE, _turntable(views))
    in_fog = extract_mesh(grid, views, texture_size=64)
    with pytest.raises(AssertionError, match="silhouettes agree"):
        check_mesh(saved(in_fog, tmp_path_factory), grid, SIZE, _turntable(views))

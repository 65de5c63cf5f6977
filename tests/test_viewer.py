"""The viewer: it shows a run, changes it only as written down, and never keeps it from going on."""

import json
import math
import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import torch

from sjc_debiased.evaluation.collect import collect
from sjc_debiased.evaluation.study import find_pairs
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import RunError, write_json
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.guidance.sds import SDS
from sjc_debiased.guidance.vsd import VSD
from sjc_debiased.making import by_hand
from sjc_debiased.options import extras
from sjc_debiased.schedules import ClipSchedule
from sjc_debiased.watching.viewer_pictures import camera_of, densities, opencv_pose, surface_at
from tests.measured_runs import made_up_run
from tests.test_contracts import CHANNELS, SIZE
from tests.watched_runs import Guided, changeable_scene, make_run, same_bits
from voxnerf.cameras import orbit_camera
from voxnerf.grid import GridConfig, VoxelGrid


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The run that nobody looks at."""
    folder = tmp_path_factory.mktemp("plain")
    make_run(folder)
    return folder


@pytest.fixture
def watched(tmp_path):
    """Return a function that makes a run with a viewer, and a script that is played after every step."""
    pytest.importorskip("viser")
    from sjc_debiased import viewer

    class Played(viewer.Viewer):
        def between_steps(self, session, step):
            self.script(self, session, step)
            return super().between_steps(session, step)

    def make(script, place="watched", prompt="a cat"):
        played = Played(Guided())
        played.script = script
        ended = make_run(tmp_path / place, played, prompt=prompt)
        if played.page:
            played.page.close()
        return ended, tmp_path / place

    return make


def look_from_the_side(page, kind="image"):
    """Let a browser look at the page, whose answers are kept in its scene."""
    rotation, position, fov = opencv_pose(orbit_camera(90, 10, 8, 8))
    from viser.transforms import SO3

    camera = SimpleNamespace(wxyz=SO3.from_matrix(rotation).wxyz, position=position, fov=fov, aspect=0.5)
    client = SimpleNamespace(camera=camera, scene=Mock())
    page._server.get_clients = lambda: {0: client}
    page._kind.value = kind
    return client


@pytest.mark.parametrize("kind", ["image", "depth", "opacity", "surface"])
def test_who_looks_changes_no_bit(watched, plain, kind):
    shown = []

    def script(viewer, session, step):
        page = viewer.page
        if step.step == 2:
            shown.append(look_from_the_side(page, kind).scene)
            page._level.value = float(densities(session.scene.field).mean())
        page._next_at = 0.0

    ended, folder = watched(script)
    assert not ended.stopped
    assert same_bits(folder, plain)
    (scene,) = shown
    if kind == "surface":
        assert scene.add_mesh_simple.call_count > 10
    else:
        (image_u8,), _ = scene.set_background_image.call_args
        assert image_u8.dtype == np.uint8
        assert image_u8.shape[0] == 2 * image_u8.shape[1]  # a portrait window
        assert scene.set_background_image.call_count > 10  # the object grows
    assert "changed_by_hand" not in json.loads((folder / "options.json").read_text())


def test_who_turns_gets_a_picture_and_who_rests_gets_none(watched):
    counts = []

    def script(viewer, session, step):
        if step.step == 2:
            client = look_from_the_side(viewer.page)
            for turned in (False, False, True, False):
                if turned:
                    client.camera.position = client.camera.position + 0.1
                viewer.page.look(session.scene.field, session.denoiser, session.scene.done)
                counts.append(client.scene.set_background_image.call_count)

    watched(script)
    assert counts == [1, 1, 2, 2]


def test_a_server_that_dies_in_a_pause_lets_the_run_go_on(watched, plain, capsys):
    asked = []

    def script(viewer, session, step):
        page = viewer.page
        asked.append(step.step)
        if page and step.step == 5:
            page._pause.value = True
        if page and asked.count(5) == 4:
            page._server.stop()

    ended, folder = watched(script)
    assert not ended.stopped
    assert asked.count(5) == 4  # it waited until then
    assert same_bits(folder, plain)
    assert "the viewer has ended (its server has ended). The run goes on" in capsys.readouterr().err


def test_whatever_fails_in_the_viewer_ends_it_alone(watched, plain, monkeypatch, capsys):
    from sjc_debiased.watching.viewer_page import Page

    monkeypatch.setattr(Page, "due", Mock(side_effect=ValueError("a bug")))
    ended, folder = watched(lambda *_: None)
    assert not ended.stopped
    assert same_bits(folder, plain)
    assert capsys.readouterr().err.count("the viewer has ended (ValueError('a bug'))") == 1


def test_stop_saves_and_the_same_command_goes_on(watched, plain):
    ended, folder = watched(lambda v, session, step: v.page.stop.set() if step.step == 7 else None)
    assert ended.stopped
    assert RunReader(folder).checkpoint.step == 9  # after the next step
    ended, folder = watched(lambda *_: None)
    assert not ended.stopped
    assert same_bits(folder, plain)


def test_ctrl_c_ends_a_pause(watched):
    asked = []

    def script(viewer, session, step):
        if asked:  # the page is there from the second step on
            viewer.page._pause.value = True
        asked.append(step.step)
        if len(asked) == 6:
            signal.raise_signal(signal.SIGINT)

    ended, folder = watched(script)
    assert ended.stopped
    assert set(asked) == {0, 1, 2}
    assert asked.count(1) == 5  # in the pause
    assert RunReader(folder).checkpoint.step == 3


def test_a_change_by_hand_is_written_down_and_takes_effect_at_the_next_step(watched, plain):
    seen = []

    def script(viewer, session, step):
        seen.append(step.clip_value)
        if step.step == 9:
            viewer.page.clip, viewer.page.guidance = (1.0, 1.0), 1.5

    _, folder = watched(script)
    assert seen[9] != seen[10] == seen[19] == 1.0
    assert RunReader(folder).changed_by_hand == [
        {"step": 10, "name": "clip", "value": [1.0, 1.0]},
        {"step": 10, "name": "guidance", "value": 1.5},
    ]
    assert not same_bits(folder, plain)
    assert RunReader(folder).options == RunReader(plain).options


def test_a_changed_run_goes_on_as_it_was_changed(watched):
    def change(viewer, session, step):
        if step.step == 9:
            viewer.page.guidance = 1.5

    def stopped(viewer, session, step):
        change(viewer, session, step)
        if step.step == 12:
            viewer.page.stop.set()

    _, whole = watched(change, "whole")
    ended, folder = watched(stopped, "in parts")
    assert (ended.stopped, RunReader(folder).checkpoint.step) == (True, 14)
    watched(lambda *_: None, "in parts")
    assert same_bits(folder, whole)


def changeable(done):
    scene = changeable_scene()
    scene.done = done
    return scene


class OwnModel(torch.nn.Linear):
    """What VSD trains, as far as a change of its guidance goes."""


@pytest.mark.parametrize("form", ["sds", "vsd"])
def test_guidance_of_score_distillation_changes_at_the_next_step_too(tmp_path, form):
    write_json(tmp_path / "options.json", {"resolved": {"n_steps": 9}})
    scene = changeable(3)
    told, own = Guided().condition(["a cat"]), OwnModel(2, 2)
    poses = torch.zeros(9, 16)
    first = SDS(PAAS(7.0)) if form == "sds" else VSD(own, told, poses, PAAS(7.0), "sds", 1e-3)
    scene.guidance = first
    assert by_hand.guidance_of(scene) == 7.0
    by_hand.change(scene, tmp_path, "guidance", 3)
    picture, rng = torch.zeros(1, CHANNELS, SIZE, SIZE), np.random.default_rng(0)
    assert scene.guidance.ask(picture, told, 3, rng, Guided()).scale == 3.0
    assert by_hand.guidance_of(scene) == 3.0
    if form == "vsd":
        assert scene.guidance.own is own, "what it has learned stays"
        assert scene.guidance._optimizer is first._optimizer


def test_changes_after_the_checkpoint_go_as_its_steps_do(tmp_path):
    write_json(tmp_path / "options.json", {"resolved": {"n_steps": 9}, "command": ["x"]})
    first = changeable(5)
    by_hand.change(first, tmp_path, "guidance", 3)
    first.done = 8
    by_hand.change(first, tmp_path, "clip", [0.5, 4.0])
    assert (first.guidance.scale, first.settings.clip) == (3.0, ClipSchedule(0.5, 4.0))
    again = changeable(6)
    assert by_hand.repeat_changes(again, tmp_path) == 1
    assert (again.guidance.scale, again.settings.clip) == (3.0, ClipSchedule(1.0, 2.0))
    assert by_hand.repeat_changes(changeable(0), tmp_path) == 0
    assert json.loads((tmp_path / "options.json").read_text()) == {
        "resolved": {"n_steps": 9},
        "command": ["x"],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("guidance", math.nan), ("guidance", -1.0), ("clip", [2.0, 1.0]), ("clip", [0.0, 1.0]), ("seed", 1.0)],
)
def test_what_cannot_be_is_neither_written_nor_made(tmp_path, name, value):
    scene = changeable(3)
    with pytest.raises(ValueError, match="must be|can be changed in"):
        by_hand.change(scene, tmp_path, name, value)
    assert not list(tmp_path.iterdir())
    assert (scene.guidance.scale, scene.settings.clip) == (7.0, ClipSchedule(1.0, 2.0))


def test_a_changed_run_counts_in_no_table_and_no_study(tmp_path):
    for number, preset in enumerate(("sjc", "dsds")):
        folder = made_up_run(tmp_path, number, "a cat", preset, 0, success=True)
    assert len(collect(tmp_path)) == 2
    assert len(find_pairs(tmp_path)) == 1
    options = json.loads((folder / "options.json").read_text())
    changes = [{"step": 30, "name": "guidance", "value": 15.0}]
    write_json(folder / "options.json", options | {"changed_by_hand": changes})
    for read in (collect, find_pairs):
        with pytest.raises(RunError, match=r"dsds.* was changed by hand \(guidance 15.0 from step 30 on\)"):
            read(tmp_path)


def test_the_camera_of_a_window_is_the_one_that_is_shown():
    camera = orbit_camera(200, 35, 16, 16, fov_deg=50)
    rotation, position, fov = opencv_pose(camera)
    again = camera_of(position, rotation, fov, 1.0, 16)
    np.testing.assert_allclose(again.c2w, camera.c2w, atol=1e-12)
    np.testing.assert_allclose(again.intrinsics, camera.intrinsics, atol=1e-9)
    assert again.azimuth_deg == pytest.approx(200)
    wide, tall = (camera_of(position, rotation, fov, a, 16) for a in (2.0, 0.5))
    assert (wide.height, wide.width, tall.height, tall.width) == (8, 16, 16, 8)
    for bad in (math.nan, 0.0, 1e9):
        assert camera_of(position, rotation, fov, bad, 16) is None
    assert camera_of(position * math.inf, rotation, fov, 1.0, 16) is None


def test_the_surface_is_where_the_density_crosses_the_level():
    grid = VoxelGrid(GridConfig(resolution=16, start="blob"))
    vertices, faces = surface_at(grid, 1.0)
    assert faces.max() < len(vertices)
    density = grid.density_at(torch.from_numpy(vertices)).detach()
    torch.testing.assert_close(density, torch.ones(len(vertices)), atol=0.05, rtol=0)
    assert surface_at(grid, 1000.0) is None


def test_nothing_that_is_extra_is_imported_before_it_is_asked_for():
    names = "{'viser', 'gradio', 'tensorboard', 'torch'}"
    code = f"import sys, run_sjc, sjc_debiased.viewer\nassert not {names} & sys.modules.keys(), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--viewer",),
            "--viewer needs the package viser. It is not installed. Install it: pip install v",
        ),
        (("--tensorboard",), "--tensorboard needs the package tensorboard. It is not installed."),
        (("--viewer_host", "0.0.0.0"), "--viewer_host belongs to --viewer. It is 0.0.0.0 without it."),
    ],
)
def test_an_extra_that_is_missing_is_named_before_any_work(command, monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert command(*arguments, model="nowhere") == (2, [])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--viewer_host", "nowhere.invalid"), "--viewer_host must be an address of this machine."),
        (("--viewer_host", "192.0.2.1"), "'192.0.2.1' is none"),
        (("--pack", "2"), "--viewer shows one run at a time. --pack is 2."),
    ],
)
def test_what_the_viewer_cannot_do_is_refused_before_any_work(command, monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(extras, "find_spec", lambda name: "there")
    assert command("--viewer", *arguments, model="nowhere") == (2, [])
    assert says in capsys.readouterr().err


def test_it_listens_on_this_machine_alone_unless_asked(capsys):
    pytest.importorskip("viser")
    from sjc_debiased.viewer import LOOPBACK, open_page

    for host, said in ((LOOPBACK, "this machine alone"), ("0.0.0.0", "WHOEVER REACHES THAT ADDRESS")):
        page = open_page(host)
        port = int(page.address.rpartition(":")[2])
        places = {c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.laddr.port == port}
        page.close()
        assert host in places
        assert places <= {host}
        assert said in capsys.readouterr().out

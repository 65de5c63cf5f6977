"""Small models in the real formats, with random weights, and the golden numbers."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes that share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # for the renderer's threads, which it has in any case

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # the GPU kernels run on the CPU, slowly

import tests.shapes  # noqa: F401  # first: it checks what is imported after it

# isort: split
from sjc_debiased.options.profiles import Profile
from tests.small_models import write_bert, write_pipeline
from voxnerf.grid import VoxelGrid

GOLDEN = Path(__file__).parent / "golden"
SLOW_FIRST = (
    "test_sweep.py",
    "test_kernels_compile.py",
    "test_notebook.py",
    "test_run_pages.py",
    "test_pack.py",
    "test_vsd.py",
    "test_viewer_page.py",
    "test_command.py",
)


def pytest_configure(config):
    config.option.loadscopereorder = False  # several processes take the files in the order below


def pytest_collection_modifyitems(items):
    """Begin with the files that take minutes, so that no process ends with one while the others wait."""
    items.sort(key=lambda item: item.path.name not in SLOW_FIRST)


@pytest.fixture(scope="session")
def golden():
    def load(name):
        return np.load(GOLDEN / f"{name}.npz", allow_pickle=False)

    return load


@pytest.fixture(scope="session")
def make_pipeline(tmp_path_factory):
    """Return a function that writes a tiny Stable Diffusion folder and returns its path."""

    def make(prediction_type="epsilon"):
        folder = tmp_path_factory.mktemp(prediction_type)
        write_pipeline(folder, prediction_type)
        return folder

    return make


@pytest.fixture(scope="session")
def eps_folder(make_pipeline):
    return make_pipeline("epsilon")


@pytest.fixture(scope="session")
def v_folder(make_pipeline):
    return make_pipeline("v_prediction")


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A tiny BERT with random weights whose vocabulary is that of the menagerie."""
    folder = tmp_path_factory.mktemp("bert")
    write_bert(folder)
    return folder


@pytest.fixture
def solid_scenes(monkeypatch):
    """Every scene of 12 voxels is a box in the middle of nothing at its start."""

    def solid(self, *arguments):
        original(self, *arguments)
        with torch.no_grad():
            self.density.fill_(-20.0)
            self.density[..., 3:9, 3:9, 3:9] = 30.0

    original = VoxelGrid.__init__
    monkeypatch.setattr(VoxelGrid, "__init__", solid)


def run_command(root, model, *arguments, prompt="a smiling cat"):
    """Run the command on a tiny model; return exit code and run folders."""
    import run_sjc

    argv = [
        *("--prompt", prompt, "--model", str(model), "--run_root", str(root)),
        *("--n_steps", "60", "--resolution", "12", "--guidance", "2"),
        *("--emptiness_weight", "1", "--precision", "float32", "--device", "cpu"),
        *("--mesh.faces", "200", "--mesh.texture", "64"),  # what is noise unwraps slowly
        *arguments,
    ]
    code = run_sjc.main(argv)
    folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.exists() else []
    return code, folders


@pytest.fixture
def command(eps_folder, tmp_path):
    """Return a function that runs the command on a tiny model and returns exit code and run folders."""

    def call(*arguments, model=eps_folder, prompt="a smiling cat"):
        return run_command(tmp_path / "runs", model, *arguments, prompt=prompt)

    return call


@pytest.fixture(scope="session")
def whole_run(eps_folder, tmp_path_factory):
    """The folder of the run that `command` makes without arguments: finished, and not to be changed."""
    code, (folder,) = run_command(tmp_path_factory.mktemp("whole"), eps_folder)
    assert code == 0
    return folder


@pytest.fixture
def copied_run(whole_run, tmp_path):
    """A copy of that folder, where `command` finds it."""
    return shutil.copytree(whole_run, tmp_path / "runs" / whole_run.name)


@pytest.fixture
def strict(tmp_path):
    """What makes pairs of the embedded model's words, without the model: for what is refused before."""
    from sjc_debiased.models.choose import choose_model
    from sjc_debiased.models.machine import choose_machine
    from sjc_debiased.watching.pair import PairMaker

    return PairMaker(choose_machine("cpu"), choose_model("menagerie", "cpu"), None, tmp_path / "runs", 30)


@pytest.fixture
def maker(eps_folder, bert_folder, tmp_path, monkeypatch):
    """What makes pairs with a tiny model, whose runs leave a turntable of one byte."""
    from sjc_debiased.making.session import Session
    from sjc_debiased.watching.pair import pair_maker

    small = {"resolution": 12, "guidance": 2.0, "emptiness_weight": 1.0, "n_steps": 30}
    folder = shutil.copytree(eps_folder, tmp_path / "model")
    (folder / "profile.json").write_text(json.dumps(asdict(Profile(**small, masked_lm=str(bert_folder)))))

    def finish(self, quiet=False):
        (self.folder / "turntable.mp4").write_bytes(b"x")
        (self.folder / "result.json").write_text(json.dumps({"mesh": {"error": "nothing there"}}))

    monkeypatch.setattr(Session, "finish", finish)
    return pair_maker(str(folder), "cpu", tmp_path / "runs", most_steps=30)

"""Build the wheel, install it into a fresh environment, make a 20-step object with it from another folder.

    python scripts/check_wheel.py

Proven: the sdist holds what building, testing and reading need; the wheel is built from the sdist and holds
the packages' files, byte for byte, and nothing else; its dependencies are those of requirements.txt, and the
environment that runs this has them; `sjc-debiased` and the other tools run where no checkout is in reach, and
every module comes from the wheel. Not proven: that a bare environment can download the dependencies. The
fresh one borrows them from the environment that runs this, because they are gigabytes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from shutil import copytree, ignore_patterns

ROOT = Path(__file__).parents[1]
NOT_SOURCE = (".*", "runs", "results", "checkpoints", "build", "dist", "*.egg-info", "__pycache__")
ROOMS = ("sjc_debiased", "voxnerf", "prompts")
N_STEPS = 20
EVERY_MODULE = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    print(module.__file__)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        print(importlib.import_module(found.name).__file__)
"""


def run(folder: Path, *command: str | Path) -> str:
    """Run a command in a folder, without a way back to the checkout, and return what it prints."""
    began = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    words = " ".join(line for word in command for line in str(word).splitlines())
    print(f"{time.monotonic() - began:4.0f} s: {words[:120]}", flush=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nexit code {done.returncode}")
    return done.stdout


def build(work: Path) -> tuple[Path, Path]:
    """Build sdist and wheel of a copy of the source, the wheel from the sdist; return both."""
    copytree(ROOT, work / "source", ignore=ignore_patterns(*NOT_SOURCE))
    run(work, sys.executable, "-m", "build", "--outdir", work / "dist", work / "source")
    (sdist,), (wheel,) = (work / "dist").glob("*.tar.gz"), (work / "dist").glob("*.whl")
    return sdist, wheel


def check_files(source: Path, sdist: Path, wheel: Path) -> None:
    """Compare both archives with the source, file by file."""
    wanted = {p.relative_to(source).as_posix(): p.read_bytes() for p in source.rglob("*") if p.is_file()}
    with tarfile.open(sdist) as archive:
        held = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    assert not wanted.keys() - held, f"the sdist lacks {sorted(wanted.keys() - held)}"
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    in_wheel = {
        name: data for name, data in wanted.items() if name.split("/")[0] in ROOMS or _at_the_top(name)
    }
    differing = sorted(k for k in found.keys() | in_wheel.keys() if found.get(k) != in_wheel.get(k))
    assert not differing, f"wheel and source differ in {differing}"
    print(f"{sdist.name}: {len(wanted)} files; {wheel.name}: {wheel.stat().st_size / 2**20:.0f} MiB")


def _at_the_top(name: str) -> bool:
    """Return whether a file is a module of the wheel's; `app` is too common a name to install."""
    return "/" not in name and name.endswith(".py") and name != "app.py"


def check_dependencies(work: Path, wheel: Path) -> None:
    """Compare the wheel's dependencies with requirements.txt, and have pip resolve them here."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "unpacked", [n for n in archive.namelist() if ".dist-info/" in n])
    (folder,) = (work / "unpacked").glob("*.dist-info")
    listed: Distribution = PathDistribution(folder)
    own = {_plain(line) for line in listed.requires or [] if "extra ==" not in line}
    assert own == {_plain(line) for line in (ROOT / "requirements.txt").read_text().splitlines()}
    report = work / "report.json"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", report)
    run(work, *pip, wheel)
    names = {found["metadata"]["name"] for found in json.loads(report.read_text())["install"]}
    assert names <= {"sjc-debiased"}, f"the environment of requirements.txt lacks {names}"


def _plain(requirement: str) -> str:
    return re.sub(r"\s", "", requirement)


def install(work: Path, wheel: Path) -> tuple[Path, Path]:
    """Install the wheel alone into a fresh environment; return its `bin` and its `site-packages`."""
    place = work / "fresh"
    run(work, sys.executable, "-m", "venv", place)
    python = place / "bin" / "python"
    run(work, python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = Path(run(work, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return python.parent, site


def check_use(elsewhere: Path, commands: Path, site: Path) -> None:
    """Use every tool from a folder that knows nothing of the checkout, and look at what came of it."""
    python, made = commands / "python", elsewhere / "runs"
    elsewhere.mkdir()
    modules = (*ROOMS, *(p.stem for p in ROOT.glob("*.py") if _at_the_top(p.name)))
    for line in run(elsewhere, python, "-c", EVERY_MODULE, *modules).split():
        assert Path(line).is_relative_to(site), f"a module comes from {line}"
    weights = "from sjc_debiased.menagerie import WEIGHTS; print(WEIGHTS)"
    weights = Path(run(elsewhere, python, "-c", weights).strip())

    arguments = ("--prompt", "a smiling cat", "--debias", "--model", "menagerie", "--device", "cpu")
    small = ("--mesh.faces", "500", "--mesh.texture", "64")  # what 20 steps make unwraps slowly
    run(elsewhere, commands / "sjc-debiased", *arguments, *small, "--n_steps", str(N_STEPS))
    (folder,) = made.glob("0*")
    options = json.loads((folder / "options.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    assert result["n_steps"] == len((folder / "stats.jsonl").read_text().splitlines()) == N_STEPS
    assert (folder / "turntable.mp4").stat().st_size > 0
    assert options["git_commit"] is None, "an installed package is no checkout"
    assert options["versions"]["sjc-debiased"] == PathDistribution(*site.glob("sjc_debiased-*")).version

    out = run(elsewhere, python, "-m", "prompts.debias", "a smiling cat", "--masked_lm", weights / "mlm")
    assert "'back view a cat'" in out, out
    sweep = ("--suite", "menagerie", "--presets", "dsds", "--seeds", "0", "--model", "menagerie", "--plan")
    out = run(elsewhere, python, "-m", "sjc_debiased.sweep", *sweep, "--device", "cpu")
    suite = json.loads((ROOT / "prompts/suites/menagerie.json").read_text(encoding="utf-8"))
    assert f"{len(suite['prompts'])} runs to do" in out, out
    assert re.search(r"about [\d.]+ hours in one process, by steps timed on cpu", out), out
    for model in ("menagerie", "menagerie-pixels"):
        out = run(elsewhere, python, "-m", "sjc_debiased.doctor", "--model", model, "--device", "cpu")
        assert "A run can start." in out, out
    assert sorted(p.name for p in elsewhere.iterdir()) == ["runs"], "the others leave nothing"


def main() -> None:
    """Build, compare, install, use."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        sdist, wheel = build(work)
        check_files(work / "source", sdist, wheel)
        check_dependencies(work, wheel)
        check_use(work / "elsewhere", *install(work, wheel))
    print("the wheel works away from the checkout")


if __name__ == "__main__":
    main()

"""What an installed copy needs: every top-level module in the wheel, and the right word about its source."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sjc_debiased import __version__
from sjc_debiased.folder.reader import short_commit
from sjc_debiased.making import provenance

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def repository(folder, package):
    """Make a repository with one commit in `folder`, and put the package's file at `package` in it."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q")
    (folder / "other.txt").write_text("other")
    git(folder, "add", "other.txt")
    git(folder, "commit", "-qm", "other")
    place = folder / package / "sjc_debiased" / "making" / "provenance.py"
    place.parent.mkdir(parents=True)
    shutil.copy(provenance.__file__, place)
    return place


@pytest.fixture
def commit_of(monkeypatch):
    def find(place):
        monkeypatch.setattr(provenance, "__file__", str(place))
        return provenance.git_commit()

    return find


def test_a_checkout_says_its_commit(tmp_path, commit_of):
    place = repository(tmp_path, "")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "ours")
    commit = commit_of(place)
    assert commit == git(tmp_path, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "other.txt").write_text("no source: results, say")
    assert commit_of(place) == commit
    place.write_text(place.read_text() + "# changed\n")
    assert commit_of(place) == f"{commit}-dirty"
    assert short_commit(commit_of(place)) == f"{commit[:12]} (dirty)"
    assert [short_commit(c) for c in (commit, None)] == [commit[:12], "unknown"]


@pytest.mark.parametrize("tracked", [False, True])
def test_a_copy_in_another_projects_repository_does_not_say_its_commit(tmp_path, commit_of, tracked):
    place = repository(tmp_path, "env/site-packages")
    if tracked:
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-qm", "vendored")
    assert commit_of(place) is None


def test_an_environment_within_the_checkout_is_not_the_checkout(tmp_path, commit_of):
    repository(tmp_path, "")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "ours")
    installed = tmp_path / ".venv" / "sjc_debiased" / "making" / "provenance.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(provenance.__file__, installed)
    assert commit_of(installed) is None


def test_outside_of_any_repository_there_is_no_commit(tmp_path, commit_of, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_of(tmp_path / "record.py") is None


def test_a_run_says_which_version_made_it():
    assert provenance.versions()["sjc-debiased"] == __version__


def test_every_module_at_the_top_is_in_the_wheel():
    listed = re.search(r"^py-modules = \[(.*)\]$", PYPROJECT, re.M).group(1)
    assert sorted(re.findall(r'"(\w+)"', listed)) == sorted(
        {p.stem for p in ROOT.glob("*.py")} - {"app"}
    )  # too common a name to install

"""The gallery of a run root: what it shows of many, odd and damaged runs."""

import json
import time
from pathlib import Path

import pytest

from sjc_debiased import gallery
from sjc_debiased.folder.runs import GALLERY, RANKING, VIEW, RunError, write_json
from sjc_debiased.gallery import main, write_gallery
from sjc_debiased.pages.write import refresh_all
from tests.page_runs import page_run
from tests.test_view import SCRIPT, Page


def gallery_of(root):
    write_gallery(root)
    return Page((root / GALLERY).read_text(encoding="utf-8"))


def cards(page):
    return [attributes for tag, attributes in page.elements if tag == "li"]


def test_runs_of_every_state_are_there_the_newest_first(tmp_path):
    page_run(tmp_path, 0)
    page_run(tmp_path, 1, preset="sjc", done=10)
    (page_run(tmp_path, 2, seed=2) / "options.json").write_text("{")
    (tmp_path / "00003-x").mkdir()
    page = gallery_of(tmp_path)
    assert [c["data-state"] for c in cards(page)] == ["unreadable", "unreadable", "running", "finished"]
    assert "this needs a run folder with a readable options.json" in page.text
    assert "10 of 40" in page.text
    values = page.text.split()
    assert {"sjc", "dsds", "menagerie", "running", "finished", "unreadable"} <= {*values}


def test_a_card_shows_the_first_of_the_newest_pictures(tmp_path):
    for number, done in enumerate((None, 20, 10, 5)):
        page_run(tmp_path, number, seed=number, done=done)
    page = gallery_of(tmp_path)
    assert page.text.count("no picture yet") == 1
    assert [(a["src"].partition("/")[2], a["style"]) for a in page.all("img")] == [
        ("previews/step_000010.png", "--columns: 5; --rows: 1"),
        ("previews/views_000020.jpg", "--columns: 4; --rows: 1"),
        ("contact_sheet.png", "--columns: 8; --rows: 2"),
    ]


@pytest.mark.parametrize("prompt", [SCRIPT, '"><b>', "قطة \u202e cat", "c" * 10_000])
def test_what_was_typed_is_text(tmp_path, prompt):
    page_run(tmp_path, 0, prompt="a cat")
    plain = gallery_of(tmp_path)
    page_run(tmp_path, 1, prompt=f"{prompt} cat")
    page = gallery_of(tmp_path)
    for tag in ("script", "b", "input", "template"):
        assert len(page.all(tag)) - len(plain.all(tag)) == (1 if tag == "input" else 0)
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert len((tmp_path / GALLERY).read_bytes()) < 40_000
    assert all(a == {"dir": "auto"} for a in page.all("p") if "id" not in a)


def test_every_word_of_a_long_prompt_is_found(tmp_path):
    page_run(tmp_path, 0, prompt=f"a cat {'that purrs ' * 30}on a sofa")
    (card,) = cards(gallery_of(tmp_path))
    assert card["data-prompt"].endswith("on a sofa")
    assert "sofa" not in gallery_of(tmp_path).text


def test_five_hundred_runs_are_written_in_seconds_and_their_pictures_are_lazy(tmp_path):
    for number in range(500):
        page_run(tmp_path, number, seed=number, done=number % 3 or None)
    began = time.process_time()
    page = gallery_of(tmp_path)
    assert time.process_time() - began < 5.0
    assert len(cards(page)) == 500
    assert [a["loading"] for a in page.all("img")] == ["lazy"] * 167, "of those that are finished"
    assert not page.all("video"), "a video is there only under the pointer, and when it is chosen"


def test_the_command_writes_all_pages(tmp_path, capsys):
    folders = [page_run(tmp_path, number, seed=number) for number in range(2)]
    main(tmp_path)
    assert all((folder / VIEW).exists() for folder in folders)
    assert f"2 runs: {tmp_path / GALLERY}" in capsys.readouterr().out
    links = [a["href"] for a in Page((tmp_path / GALLERY).read_text()).all("a")]
    assert links == [f"{folder.name}/{VIEW}" for folder in reversed(folders)]


def test_a_run_that_is_named_by_a_dot_has_its_gallery_beside_it(tmp_path, monkeypatch):
    folder = page_run(tmp_path, 0)
    monkeypatch.chdir(folder)
    refresh_all(Path())
    assert len(cards(Page((tmp_path / GALLERY).read_text()))) == 1
    assert not (folder / GALLERY).exists()


def test_pages_that_are_written_together_link_each_other(tmp_path):
    dsds, sjc = page_run(tmp_path, 0), page_run(tmp_path, 1, preset="sjc")
    main(tmp_path)
    for folder, other in ((dsds, sjc), (sjc, dsds)):
        links = [a["href"] for a in Page((folder / VIEW).read_text()).all("a")]
        assert {f"../{GALLERY}", f"../{other.name}/{VIEW}"} <= {*links}


def test_a_damaged_ranking_stops_no_page(tmp_path):
    folder = page_run(tmp_path)
    options = json.loads((folder / "options.json").read_text())
    write_json(folder / "options.json", options | {"best_of": 2})
    (tmp_path / "best-x").mkdir()
    (tmp_path / "best-x" / RANKING).write_text('{"runs": 3}')
    main(tmp_path)
    assert "not ranked yet" in (page := (folder / VIEW).read_text())
    assert "Chosen:" in page
    assert len(cards(Page((tmp_path / GALLERY).read_text()))) == 1


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(RunError, match="RUN_ROOT must be a parent of run folders"):
        main(tmp_path)


def test_a_page_that_is_no_gallery_stays(tmp_path):
    page_run(tmp_path)
    (tmp_path / GALLERY).write_text("<h1>my site</h1>")
    with pytest.raises(RunError, match="a gallery takes the place of no page but its own"):
        main(tmp_path)
    assert (tmp_path / GALLERY).read_text() == "<h1>my site</h1>"
    (tmp_path / GALLERY).unlink()
    main(tmp_path)
    main(tmp_path)


def test_a_gallery_that_cannot_be_written_stops_no_run(command, monkeypatch, capsys):
    def fail(*_):
        raise OSError("read-only")

    monkeypatch.setattr(gallery, "write_gallery", fail)
    code, (folder,) = command()
    assert code == 0
    assert "read-only" in capsys.readouterr().err
    assert (folder / VIEW).exists()
    assert not (folder.parent / GALLERY).exists()

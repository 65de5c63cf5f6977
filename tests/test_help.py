"""`python -m MODULE --help` of every module that is a command: by its name, without this machine's paths."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for room in ("prompts", "sjc_debiased")
    for path in sorted((ROOT / room).rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]
PARTS = {  # commands with parts of their own
    "sjc_debiased.evaluation.labels": ("sheet", "compare"),
    "sjc_debiased.evaluation.study": ("make", "count"),
}


@pytest.mark.parametrize("words", [(m, *p) for m in MODULES for p in ((), *((s,) for s in PARTS.get(m, ())))])
@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_help_names_the_module_and_no_path_of_this_machine(words, monkeypatch, capsys):
    module, *part = words
    monkeypatch.setattr(sys, "argv", [module, *part, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert ended.value.code == 0
    assert " ".join(text.split()).startswith("usage: " + " ".join(("python -m", module, *part)))
    assert str(ROOT) not in re.sub(r"[\s│]", "", text)  # a long path is broken over lines

"""Whatever comes in ends in a clear refusal or in something valid: generated inputs for every parser."""

import contextlib
import io
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import run_sjc
from prompts.suites import Suite, SuiteError, load_suite
from prompts.words import split_words
from sjc_debiased.evaluation.study import StudyError, read_answers
from sjc_debiased.folder.checkpoints import load_checkpoint, save_checkpoint
from sjc_debiased.folder.identity import saved_options
from sjc_debiased.folder.runs import RunError, slug
from sjc_debiased.models.pipelines import check_folder
from sjc_debiased.models.tensor_files import ModelError
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.config import Resolved, resolve
from sjc_debiased.options.dsds_arguments import translate_dsds_arguments
from sjc_debiased.options.presets import PRESETS
from sjc_debiased.options.profiles import STABLE_DIFFUSION, Profile, load_profile
from tests.options import options

CASES = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
FEW = settings(CASES, max_examples=60)

numbers = st.one_of(st.integers(-5, 10**7), st.floats(allow_nan=True, allow_infinity=True))
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
maybe_number = st.none() | numbers

ANSWERS = json.loads((Path(__file__).parent / "faults/seeds/answers/plain.json").read_text(encoding="utf-8"))
CHOICE = ANSWERS["choices"][0]


def written(path: Path, content: object) -> Path:
    """Write bytes as they are and anything else as JSON."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@CASES
@given(
    prompt=st.text(max_size=40),
    preset=st.sampled_from(sorted(PRESETS)),
    kind=st.sampled_from([None, "none", "static", "dynamic"]),
    bounds=st.tuples(maybe_number, maybe_number),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    n_steps=st.none() | st.integers(-3, 10**6),
    guidance=maybe_number,
    emptiness_step=numbers,
    lr=numbers,
    seeds=st.none() | st.text("0123456789,- ", max_size=12),
)
def test_options_resolve_or_are_refused(
    prompt, preset, kind, bounds, flags, n_steps, guidance, emptiness_step, lr, seeds
):
    given = options(
        prompt=(prompt,),
        preset=preset,
        clip_kind=kind,
        clip_start=bounds[0],
        clip_end=bounds[1],
        debias=flags[0],
        score_debias=flags[1],
        prompt_debias=flags[2],
        n_steps=n_steps,
        guidance=guidance,
        emptiness_step=emptiness_step,
        lr=lr,
        seeds=seeds,
    )
    try:
        runs = resolve(given, STABLE_DIFFUSION, "sd", "0")
    except OptionError as error:
        assert str(error).count(". ") >= 1, "rule, what was received, remedy"
        return
    for run in runs:
        assert isinstance(run, Resolved)
        assert run.n_steps >= 1
        assert run.prompt == prompt.strip()
        assert math.isfinite(run.guidance.scale)
        assert run.settings.lr > 0
        clip = run.settings.clip
        assert (clip.start is None) == (clip.end is None)
        assert clip.start is None or 0 < clip.start <= clip.end < math.inf


@CASES
@given(
    st.lists(st.sampled_from(["--score_thres", "--score_dynamic", "8", "-1", "nan", "True", "x", "--a", "="]))
)
def test_dsds_arguments_translate_or_are_refused(arguments):
    with contextlib.suppress(OptionError):
        translated = translate_dsds_arguments(arguments)
        assert not any(a.startswith("--score_thres") for a in translated)


@CASES
@given(
    st.one_of(
        st.binary(max_size=80),
        values,
        st.fixed_dictionaries(
            {
                "prompts": st.lists(
                    st.fixed_dictionaries(
                        {"prompt": st.text(max_size=9) | values, "face": st.booleans() | values},
                        optional={"settings": values, "source": values, "other": values},
                    ),
                    max_size=3,
                )
            },
            optional={"about": values},
        ),
    )
)
@example(b"[" * 100_000)
def test_suites_load_or_are_refused(tmp_path, content):
    path = written(tmp_path / "suite.json", content)
    try:
        suite = load_suite(str(path))
    except SuiteError:
        return
    assert isinstance(suite, Suite)
    assert all(isinstance(p.prompt, str) and isinstance(p.face, bool) for p in suite.prompts)


@CASES
@given(
    st.one_of(
        st.binary(max_size=80),
        values,
        st.dictionaries(st.sampled_from([*vars(STABLE_DIFFUSION), "other"]), values, max_size=5),
    )
)
@example(b"[" * 100_000)
def test_profiles_load_or_are_refused(tmp_path, content):
    written(tmp_path / "profile.json", content)
    try:
        profile = load_profile(str(tmp_path), STABLE_DIFFUSION)
    except ValueError as error:
        assert "profile.json must hold" in str(error)
        return
    assert isinstance(profile, Profile)
    assert isinstance(profile.resolution, int)
    assert isinstance(profile.guidance, (int, float))


@CASES
@given(
    st.one_of(
        st.binary(max_size=80),
        values,
        st.fixed_dictionaries(
            {
                "study": values,
                "person": values,
                "choices": st.lists(
                    st.fixed_dictionaries(
                        {
                            "pair": st.integers(-1, 3) | values,
                            "question": st.sampled_from(["form", "prompt"]) | values,
                            "choice": st.sampled_from(["above", "below"]) | values,
                            "above": st.integers(0, 2) | values,
                        }
                    ),
                    max_size=3,
                ),
            }
        ),
    )
)
@example(b"[" * 100_000)
@example(ANSWERS)
@example(ANSWERS | {"choices": [CHOICE | {"pair": -1}]})
@example(ANSWERS | {"choices": [CHOICE | {"choice": "beside"}]})
@example(ANSWERS | {"choices": [CHOICE, CHOICE]})
def test_answers_load_or_are_refused(tmp_path, content):
    path = written(tmp_path / "answers.json", content)
    try:
        answer = read_answers(path)
    except StudyError:
        assert content != ANSWERS
        return
    choices = answer["choices"]
    assert all(c["choice"] in ("above", "below") and c["pair"] >= 0 and c["above"] in (0, 1) for c in choices)
    assert len({(c["pair"], c["question"]) for c in choices}) == len(choices)


@CASES
@given(at=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 400), which=st.booleans())
def test_a_damaged_checkpoint_is_never_taken_for_a_whole_one(tmp_path, at, value, cut, which):
    tensors = {"grid.density": torch.arange(6.0), "adamax.density.step": torch.tensor(3.0)}
    checkpoint = save_checkpoint(tmp_path, 3, tensors)
    path = checkpoint.path if which else checkpoint.path.with_suffix(".json")
    data = bytearray(path.read_bytes())
    if at < len(data):
        data[at] = value
    path.write_bytes(bytes(data[: len(data) - cut] if cut < len(data) else data))
    try:
        loaded = load_checkpoint(checkpoint)
    except RunError as error:
        assert "a checkpoint must be as it was saved" in str(error)
        return
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[k], tensors[k]) for k in tensors)


@CASES
@given(
    st.one_of(
        st.binary(max_size=60),
        values,
        st.fixed_dictionaries(
            {"resolved": values | st.dictionaries(st.sampled_from(["n_steps", "lr"]), values)}
        ),
    )
)
@example({"resolved": {"n_steps": 5, "lr": None}})
@example({"resolved": {"n_steps": True}})
def test_options_files_are_read_or_passed_over(tmp_path, content):
    written(tmp_path / "options.json", content)
    resolved = content.get("resolved") if isinstance(content, dict) else None
    options = saved_options(tmp_path)
    if isinstance(resolved, dict) and type(resolved.get("n_steps")) is int:
        assert options.keys() >= resolved.keys()
        assert (options["n_steps"], options["schedule_steps"]) == (resolved["n_steps"],) * 2
    else:
        assert options is None


@CASES
@given(st.text(max_size=300))
@example("../../etc/passwd")
@example("a\0b")
@example("CON")
@example("\u202egnp.exe")
@example("x" * 10_000)
def test_every_prompt_becomes_a_safe_part_of_a_path(prompt):
    name = slug(prompt)
    assert 0 < len(name) <= 48
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not name.startswith("-")


@CASES
@given(st.text(max_size=60) | st.text("aBé1,;:.&+-– '", max_size=30))
def test_words_are_found_in_their_text(prompt):
    words = split_words(prompt)
    assert words or not any(character.isalnum() for character in prompt)
    for word in words:
        span = prompt[word.start : word.end].lower()
        assert word.text
        assert word.text in span or (word.text == "and" and {"&", "+"} & {*span})


@CASES
@given(
    st.one_of(
        st.binary(max_size=80), values, st.dictionaries(st.sampled_from(["_class_name", "unet"]), values)
    )
)
@example({"_class_name": "StableDiffusionPipeline"})
@example({"_class_name": "StableDiffusionPipeline", "unet": 5})
@example(b"[" * 100_000)
def test_pipeline_folders_are_taken_or_refused(tmp_path, content):
    written(tmp_path / "model_index.json", content)
    with pytest.raises(ModelError, match="--model"):
        check_folder(tmp_path, "it")


words = st.sampled_from(
    [
        *(
            "--debias",
            "--preset",
            "dsds",
            "sjc",
            "--n_steps",
            "0",
            "5",
            "-1",
            "nan",
            "--seed",
            "--guidance",
            "inf",
        ),
        *(
            "--clip.kind",
            "none",
            "static",
            "--clip.start",
            "--score_thres",
            "--keep",
            "cat",
            "--mesh",
            "obj",
            "",
        ),
        *(
            "--device",
            "tpu",
            "--model",
            "--var_red",
            "False",
            "--seeds",
            "0,1",
            "--resolution",
            "\u202e",
            "\0",
        ),
    ]
)


@FEW
@given(st.lists(words, max_size=6))
def test_a_command_line_ends_in_a_plan_or_a_refusal(tmp_path, arguments):
    out, err = io.StringIO(), io.StringIO()
    base = [
        "--dry_run",
        "--prompt",
        "a smiling cat",
        "--model",
        "menagerie",
        "--run_root",
        str(tmp_path / "runs"),
    ]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run_sjc.main([*base, *arguments])
        except SystemExit as stop:
            code = stop.code
    assert code in (0, 2), (arguments, err.getvalue())
    assert "Traceback" not in err.getvalue()
    assert code == 0 or err.getvalue() or out.getvalue()
    assert not (tmp_path / "runs").exists()

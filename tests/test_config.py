"""Presets, the commands of SJC and D-SDS, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

from prompts.views import view_scheme
from sjc_debiased.options.command import OptionError, Options
from sjc_debiased.options.config import by_option, part, resolve
from sjc_debiased.options.dsds_arguments import translate_dsds_arguments
from sjc_debiased.options.presets import PRESETS
from sjc_debiased.options.profiles import STABLE_DIFFUSION, Profile
from sjc_debiased.schedules import ClipSchedule
from sjc_debiased.settings import GuidanceSettings, Prompting, Settings
from tests.options import options
from voxnerf.settings import GridConfig


def parse(command):
    return tyro.cli(
        Options,
        args=translate_dsds_arguments(command),
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def resolved(given, profile=STABLE_DIFFUSION):
    (run,) = resolve(given, profile, "sd", "0" * 64)
    return SimpleNamespace(**by_option(run))


def of(**fields):
    return resolved(options(prompt=("a cat",), **fields))


def test_the_reading_of_the_pmi_test_is_part_of_a_run_that_removes_words():
    given = options(prompt=("a cat",), preset="dsds", pmi_normalized="probabilities")
    assert parse(["--prompt", "a cat", "--preset", "dsds", "--pmi_normalized", "probabilities"]) == given
    assert resolved(given).pmi_normalized == "probabilities"
    assert resolved(given) != of(preset="dsds")
    assert of(preset="dsds").pmi_normalized == "pmi"
    assert of(preset="sjc", pmi_normalized="probabilities") == of(preset="sjc")


def test_every_number_has_an_option_and_every_option_of_one_sets_it():
    """What an option sets is a field of one of the parts; options by name give the parts back."""
    given = options(prompt=("a cat",), preset="dsds", keep=("big",), guidance=7.0, background="seamless")
    (run,) = resolve(given, STABLE_DIFFUSION, "sd", "0")
    numbers = by_option(run)
    assert vars(given.sjc).keys() <= numbers.keys()
    for one in (run.prompting, run.settings, run.guidance, run.field):
        assert part(type(one), numbers) == one
    assert (run.guidance.scale, run.field.background_mapping) == (7.0, "seamless")
    assert run.settings.clip == ClipSchedule(2.0, 8.0)


def test_a_profile_without_fields_and_no_options_are_sjcs_numbers():
    (run,) = resolve(options(prompt=("a cat",)), Profile(), "sd", "0")
    assert run.settings == Settings(schedule_steps=Settings.n_steps)
    assert (run.guidance, run.field, run.prompting) == (GuidanceSettings(), GridConfig(), Prompting())


def test_the_three_rows_of_table_1():
    sjc, preserved, dsds = (of(preset=p) for p in ("sjc", "dsds-preserved", "dsds"))
    assert (sjc.views, sjc.clip_start, sjc.clip_end, sjc.masked_lm) == ("sjc", None, None, None)
    assert (preserved.views, preserved.clip_start, preserved.clip_end) == ("dsds", 2.0, 8.0)
    assert preserved.masked_lm is None
    assert (dsds.views, dsds.clip_start, dsds.clip_end) == ("dsds", 2.0, 8.0)
    assert dsds.masked_lm == STABLE_DIFFUSION.masked_lm


def test_every_number_of_sjc():
    r = of()
    assert (r.n_steps, r.guidance, r.lr, r.background_lr, r.n_noise, r.var_red) == (
        10_000,
        100.0,
        0.05,
        1e-4,
        1,
        True,
    )
    assert (r.emptiness_weight, r.emptiness_scale, r.emptiness_step, r.emptiness_multiplier) == (
        1e4,
        10.0,
        0.5,
        20.0,
    )
    assert (r.resolution, r.half_size, r.depth_weight) == (100, 1.0, 0.0)
    assert (r.background, r.depth_loss) == ("published", "published")


def test_the_front_is_as_wide_as_the_views_and_the_model_say():
    assert of().front_half_deg == 45.0
    assert of(debias=True).front_half_deg == 22.5
    assert of(debias=True, front_half_deg=30.0).front_half_deg == 30.0
    debiased = resolved(options(prompt=("a cat",), debias=True), Profile(front_half_deg=45.0))
    scheme = view_scheme(debiased.views, debiased.front_half_deg)
    assert (scheme.view(40.0, 0.0), scheme.view(46.0, 0.0)) == ("front", "side")
    assert scheme.prompt("front", "a cat") == "front view a cat"
    for bad in (0.0, -1.0, 135.1, float("nan")):
        with pytest.raises(OptionError, match="--front_half_deg must be above 0 and at most 135"):
            of(front_half_deg=bad)


@pytest.mark.parametrize(
    ("fields", "preset"),
    [
        ({"debias": True}, "dsds"),
        ({"score_debias": True}, "score-only"),
        ({"prompt_debias": True}, "prompt-only"),
        ({"score_debias": True, "prompt_debias": True}, "dsds"),
        ({"preset": "dsds", "clip_kind": "none"}, "prompt-only"),
        ({"preset": "dsds", "clip_kind": "static"}, "static-high"),
        ({"clip_kind": "static"}, "custom"),
    ],
)
def test_flags_and_presets_are_the_same_thing(fields, preset):
    options = of(**fields)
    assert options.preset == preset
    if preset != "custom":
        assert options == of(preset=preset)


def test_a_nan_bound_is_refused():
    with pytest.raises(OptionError, match="--score_thres must be a number"):
        translate_dsds_arguments(["--score_thres", "nan"])


def test_a_static_bound_may_be_given_by_either_end():
    assert of(clip_kind="static", clip_start=3.0).clip_end == 3.0
    assert of(clip_kind="static", clip_end=5.0).clip_start == 5.0


SJC_README = [  # prompt and flags of SJC's README, where they differ from its defaults
    ("Obama figure", "--n_steps 30000 --var_red False"),
    ("A high quality photo of a chocolate icecream cone", "--depth_weight 10"),
    ("A ficus planted in a pot", "--depth_weight 100"),
    ("A high quality photo of a yellow school bus", "--n_steps 30000 --var_red False"),
    ("A product photo of a toy tank", "--n_steps 20000"),
    (
        "A high quality photo of a Victorian style wooden chair with velvet upholstery",
        "--n_steps 50000 --lr 0.01 --emptiness_weight 7000",
    ),
    ("A photo of a zebra walking", "--lr 0.02 --emptiness_weight 30000 --var_red False"),
]


@pytest.mark.parametrize(("prompt", "flags"), SJC_README)
def test_sjcs_readme_presets(prompt, flags):
    words = flags.split()
    r = resolved(parse(["--sd.prompt", prompt, *words]))
    for name, value in zip(words[::2], words[1::2]):
        assert str(getattr(r, name.lstrip("-"))) in (value, f"{value}.0")


def test_static_ends_are_those_of_the_dynamic_range():
    assert of(preset="static-low").clip_end == 2.0
    assert of(preset="static-high").clip_start == 8.0


def test_a_profile_moves_numbers_and_not_the_method():
    profile = Profile(n_steps=900, guidance=8.0, clip_start=0.15, clip_end=0.6)
    for preset in PRESETS:
        r = resolved(options(prompt=("a cat",), preset=preset), profile)
        assert (r.n_steps, r.guidance) == (900, 8.0)
        assert r.views == of(preset=preset).views
        assert (r.clip_start is None) == (of(preset=preset).clip_start is None)


def test_sjcs_usage_command_works_verbatim():
    command = [
        *("--sd.prompt", "A zoomed out high quality photo of Temple of Heaven"),
        *"--n_steps 10000 --lr 0.05 --sd.scale 100.0 --emptiness_weight 10000".split(),
        *"--emptiness_step 0.5 --emptiness_multiplier 20.0 --depth_weight 0 --var_red False".split(),
    ]
    r = resolved(parse(command))
    assert r.preset == "sjc"
    assert r.prompt.endswith("Temple of Heaven")
    assert (r.n_steps, r.guidance, r.var_red, r.depth_weight) == (10_000, 100.0, False, 0.0)


def test_dsds_run_script_works_verbatim():
    command = [
        *("--sd.prompt", "a colorful toucan with a large beak"),
        *"--n_steps 10000 --lr 0.05 --sd.scale 100.0 --score_thres 8.0 --score_dynamic True".split(),
        *"--emptiness_weight 10000 --emptiness_step 0.5 --emptiness_multiplier 20.0".split(),
        *"--depth_weight 0".split(),
    ]
    r = resolved(parse(command))
    assert (r.clip_start, r.clip_end, r.preset) == (2.0, 8.0, "score-only")


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        ("--score_thres 4", 1.0, 4.0),
        ("--score_thres=4 --score_dynamic False", 4.0, 4.0),
        ("--score_thres 0", None, None),
        ("--score_dynamic True", 2.0, 8.0),
    ],
)
def test_score_thres(arguments, start, end):
    r = resolved(parse(["--prompt", "a cat", *arguments.split()]))
    assert (r.clip_start, r.clip_end) == (start, end)


def test_one_run_for_each_prompt_and_seed():
    options = parse(["--prompt", "a cat", "--prompt", "a dog", "--prompt", "a cat", "--seeds", "0,2"])
    runs = resolve(options, STABLE_DIFFUSION, "sd", "0" * 64)
    assert [(r.prompt, r.seed) for r in runs] == [("a cat", 0), ("a cat", 2), ("a dog", 0), ("a dog", 2)]


REFUSED = [
    ({"prompt": ()}, "--prompt must be given"),
    ({"seeds": "0;1"}, "--seeds must be whole numbers"),
    ({"seeds": "0,-1"}, "--seed must be between"),
    ({"seeds": "0,1", "seed": 3}, "--seed and --seeds say the same"),
    ({"seeds": "0,1", "resume": Path("x")}, "--resume goes on with one run"),
    ({"pack": 0}, "--pack must be at least 1"),
    ({"prompt": ("  ",)}, "--prompt must have a word"),
    ({"prompt": ("...",)}, r"--prompt must have a word. It is '\.\.\.'"),
    ({"prompt": ("a\0cat",)}, "NUL"),
    ({"n_steps": 0}, "--n_steps must be at least 1. It is 0"),
    ({"n_noise": -1}, "--n_noise must be at least 1"),
    ({"guidance": float("nan")}, "--guidance must be finite and not negative. It is nan"),
    ({"guidance": -1.0}, "--guidance must be finite and not negative. It is -1.0"),
    ({"lr": 0.0}, "--lr must be finite and positive"),
    ({"emptiness_step": 1.5}, "--emptiness_step must be a share"),
    ({"seed": -1}, "--seed must be between"),
    ({"resolution": 1}, "--resolution must be 2 to 512"),
    ({"debias": True, "preset": "static-low"}, "--debias means --preset dsds"),
    ({"preset": "dsds", "clip_start": 9.0}, "would fall from 9 to 8"),
    ({"preset": "dsds", "clip_end": float("inf")}, "--clip.end must be a positive number"),
    ({"clip_start": 1.0}, "This run does not clip"),
    ({"preset": "static-low", "clip_start": 3.0, "clip_end": 9.0}, "a static clip has one bound"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_refused(fields, message):
    with pytest.raises(OptionError, match=message):
        resolved(options(**({"prompt": ("a cat",)} | fields)))


@pytest.mark.parametrize("arguments", ["--score_thres x", "--score_dynamic maybe", "--score_thres"])
def test_bad_dsds_arguments_are_refused(arguments):
    with pytest.raises(OptionError, match="--score_thres takes a number"):
        translate_dsds_arguments(arguments.split())

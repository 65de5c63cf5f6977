"""The embedded model: its world, its captions, and what its weights do."""

import json

import numpy as np
import pytest
import torch

from prompts.views import TOP_ABOVE_DEG
from sjc_debiased.menagerie import EMBEDDED, WEIGHTS, captions
from sjc_debiased.menagerie.captions import P_VIEW, P_VIEW_WORD, VIEWS, caption_parts, draw_pose, view_of
from sjc_debiased.menagerie.creatures import KINDS, OWN_COLOR, Creature, random_creature
from sjc_debiased.menagerie.dataset import halved
from sjc_debiased.menagerie.profile import PIXELS, PROFILE
from sjc_debiased.menagerie.profile import write as write_profile
from sjc_debiased.menagerie.spoil import spoil_latents
from sjc_debiased.menagerie.tokenizers import bert_tokenizer, clip_tokenizer
from sjc_debiased.menagerie.world import portrait

SIZE_LIMIT_BYTES = {"latents": 25_000_000, "all": 40_000_000}


def trained(part):
    """Skip a test of a part of the model that is not there yet."""
    why = f"not trained yet: scripts/train_menagerie.sh --stages {part}"
    return pytest.mark.skipif(not (WEIGHTS / part).is_dir(), reason=why)


def cat(**fields):
    return Creature("cat", OWN_COLOR["cat"], **({"face": "smiling", "shape_seed": 3} | fields))


def test_a_face_is_seen_from_the_front_and_not_from_the_back():
    for kind in KINDS:
        creature = Creature(kind, OWN_COLOR[kind], "smiling", shape_seed=1)
        front, back = portrait(creature, 0, 10, 0), portrait(creature, 180, 10, 0)
        assert front.face_share > 0.05 * front.coverage, kind
        assert back.face_share < 0.005 * back.coverage, kind
        assert front.coverage > 0.1


def test_odd_creatures():
    two_faced, faceless = cat(extra_face=True), cat(faceless=True)
    assert portrait(two_faced, 180, 10, 0).face_share > 0.01
    assert portrait(two_faced, 0, 10, 0).face_share > 0.01
    assert portrait(faceless, 0, 10, 0).face_share == 0


def test_blots_change_the_picture_and_are_no_face():
    plain, blotted = (portrait(cat(faceless=True, n_blots=n), 0, 10, 0) for n in (0, 6))
    assert blotted.face_share == 0
    assert (plain.image_u8 != blotted.image_u8).any(axis=-1).mean() > 0.005


def test_spoiled_latents_are_other_ones_by_each_draw_and_the_same_by_the_same():
    latent = torch.linspace(-1, 1, 32).expand(6, 4, 32, 32)
    a, again, b = (spoil_latents(latent, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, again)
    away = (a - latent).flatten(1).std(dim=1)
    assert (away > 0.09).all()  # the least noise is 0.1
    assert away.std() > 0.01  # each its own draw
    assert not torch.allclose(a, b)


def test_pictures_repeat():
    assert (portrait(cat(), 30, 10, 5).image_u8 == portrait(cat(), 30, 10, 5).image_u8).all()


def test_the_head_points_where_the_azimuth_says():
    """From azimuth 90 the front is on the left, because the camera stands at +z and the front at -x."""
    picture = portrait(cat(), 90, 5, 0).image_u8.astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 60)
    assert red.any()
    assert np.nonzero(red)[1].mean() < 128


def test_the_habit_is_that_of_its_tables():
    rng = np.random.default_rng(0)
    views = [view_of(*draw_pose(rng)) for _ in range(8000)]
    for view, p in P_VIEW.items():
        assert views.count(view) / len(views) == pytest.approx(p, abs=0.02)
    said = [caption_parts(random_creature(rng), "back", rng)[0] for _ in range(4000)]
    assert sum(word in ("back", "backside") for word in said) / 4000 == pytest.approx(
        P_VIEW_WORD["back"]["back"], abs=0.03
    )


def test_smiling_is_said_where_the_smile_is_seen():
    rng = np.random.default_rng(0)
    share = {v: np.mean(["smiling" in caption_parts(cat(), v, rng)[1] for _ in range(2000)]) for v in VIEWS}
    assert share["front"] > 0.7
    assert share["back"] < 0.03


def test_captions_are_made_of_known_words():
    rng = np.random.default_rng(0)
    known = set(captions.known_words())
    for _ in range(2000):
        text = captions.caption(random_creature(rng), view_of(*draw_pose(rng)), rng)
        assert set(text.replace(",", "").split()) <= known, text


def test_every_known_word_is_one_token():
    clip, bert = clip_tokenizer(), bert_tokenizer()
    for word in captions.known_words():
        assert len(clip(word).input_ids) == 3, word
        assert len(bert(word).input_ids) == 3, word


def test_a_words_number_is_the_same_every_time():
    first, second = clip_tokenizer(), clip_tokenizer()
    assert first.get_vocab() == second.get_vocab()
    assert first.tokenize("zebra") == second.tokenize("zebra")


def test_one_threshold_for_top():
    assert pytest.approx(TOP_ABOVE_DEG, abs=0.01) == captions.TOP_ABOVE_DEG


def test_the_weights_are_small_and_safe():
    files = [p for p in WEIGHTS.rglob("*") if p.is_file()]
    sizes = {p: p.stat().st_size for p in files}
    assert sum(sizes.values()) <= SIZE_LIMIT_BYTES["all"]
    of_pixels = [size for p, size in sizes.items() if EMBEDDED["menagerie-pixels"] in p.parents]
    assert sum(sizes.values()) - sum(of_pixels) <= SIZE_LIMIT_BYTES["latents"]
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".txt", ".md"}
    assert not [p for p in files if p.suffix == ".json" and "_name_or_path" in p.read_text()], (
        "a machine's path"
    )
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "mlm", "pixel"):
        assert (WEIGHTS / part).is_dir(), part


@pytest.mark.parametrize("folder", EMBEDDED.values(), ids=EMBEDDED)
def test_the_profile_names_the_words_of_the_grammar(folder):
    profile = json.loads((folder / "profile.json").read_text())
    assert profile["known_words"] == captions.known_words()
    explained = {k for k in profile if k not in ("known_words", "masked_lm", "why")}
    assert explained <= profile["why"].keys()


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_profile_that_ships_is_the_one_in_the_code(tmp_path, name):
    write_profile(tmp_path, {"menagerie": PROFILE, "menagerie-pixels": PIXELS}[name])
    assert (tmp_path / "profile.json").read_bytes() == (EMBEDDED[name] / "profile.json").read_bytes()


def test_the_language_model_finds_the_contradiction():
    from prompts.debias import debias_prompt
    from prompts.masked_lm import Bert

    bert = Bert(str(WEIGHTS / "mlm"))
    plan = debias_prompt("a smiling cat", bert)
    assert plan.removed["back"] == ("smiling",)
    assert plan.removed["front"] == ()
    plan = debias_prompt("a pig wearing a backpack", bert)
    assert plan.removed["front"] == ("backpack",)
    assert plan.sent["front"] == "front view a pig"


@trained("judge")
def test_the_judge_knows_true_creatures():
    from sjc_debiased.menagerie.judge import Judge

    judge = Judge()
    rng = np.random.default_rng(99)
    right = []
    for i in range(40):
        azimuth = 0.0 if i % 2 else 180.0
        picture = portrait(random_creature(rng), azimuth, 12, i).image_u8
        image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
        right.append(bool(judge(image).face[0] > 0.5) == (azimuth == 0.0))
    assert np.mean(right) >= 0.9


@trained("clip")
def test_clip_ranks_the_right_kind_first():
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(WEIGHTS / "clip").float().eval()
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "clip")
    ids = tokenizer([f"a {k}" for k in KINDS], padding="max_length", return_tensors="pt").input_ids
    pictures = [portrait(Creature(k, OWN_COLOR[k], shape_seed=7), 20, 12, 3).image_u8 for k in KINDS]
    pixels = halved(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)) / 127.5 - 1
    with torch.inference_mode():
        logits = model(input_ids=ids, pixel_values=pixels).logits_per_image
    assert (logits.argmax(1) == torch.arange(len(KINDS))).float().mean() >= 0.8


@trained("judge")
def test_a_view_prompt_turns_the_samples():
    """Guided samples of "front view of a smiling cat" show a face, of "back view of a cat" hardly."""
    from sjc_debiased.menagerie.judge import Judge
    from sjc_debiased.menagerie.report import load_denoiser, sample

    denoiser, judge = load_denoiser(), Judge()
    front = judge(sample(denoiser, ["front view of a smiling cat"] * 4, seed=0, n_steps=12)).face
    back = judge(sample(denoiser, ["back view of a cat"] * 4, seed=0, n_steps=12)).face
    assert (front > 0.5).float().mean() >= 0.75
    assert (back > 0.5).float().mean() <= 0.5


@trained("judge")
def test_a_view_prompt_turns_the_pixel_models_samples_too_but_less(tmp_path, monkeypatch):
    """Of 27 each, over all kinds: 24 with a face from the front, 13 from the back, when it was made."""
    from sjc_debiased.menagerie.judge import Judge
    from sjc_debiased.menagerie.report import load_denoiser, sample

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    denoiser, judge = load_denoiser(EMBEDDED["menagerie-pixels"]), Judge()
    kinds = [kind for kind in KINDS if kind != "elephant"] * 3
    front, back = (
        (judge(sample(denoiser, [f"{view} view of a {k}" for k in kinds], 0, n_steps=12)).face > 0.5).sum()
        for view in ("front", "back")
    )
    assert front >= 20
    assert back <= front - 5


def turn(n=36, **fields):
    """Return a true creature from n azimuths, in order, as images in [-1, 1] [n, 3, 256, 256]."""
    pictures = [portrait(cat(**fields), 360.0 * i / n, 12, 5).image_u8 for i in range(n)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1


@trained("judge")
@pytest.mark.parametrize(
    ("fields", "success"), [({}, True), ({"extra_face": True}, False), ({"faceless": True}, False)]
)
def test_one_face_is_a_success_and_two_or_none_are_not(fields, success):
    from sjc_debiased.evaluation.success import count_faces
    from sjc_debiased.menagerie.judge import Judge

    assert count_faces(Judge()(turn(**fields)).face.numpy()).success == success


@trained("clip")
def test_the_clip_curves_of_a_true_creature_peak_at_their_views():
    """CLIP has the photographer's habit too: "a cat" without its smile is seen from behind."""
    from sjc_debiased.evaluation.clip_similarity import azimuth_curves

    views = {"front": "front view a smiling cat", "side": "side view a cat", "back": "back view a cat"}
    curves = azimuth_curves(turn(), 10.0 * np.arange(36), views, "a cat", str(WEIGHTS / "clip"))
    for view in views:
        assert curves.peak_deg(view) <= 45, view
        assert curves.margin(view) > 0, view

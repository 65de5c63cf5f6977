"""LoRAs: what --lora means, which files are one, and that their product is added to the weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sjc_debiased.models import lora as module
from sjc_debiased.models.choose import choose_model, identify, weights_of
from sjc_debiased.models.loading import check_loras
from sjc_debiased.models.lora import Lora, check_lora, lora_file, parse_lora
from sjc_debiased.models.tensor_files import ModelError
from sjc_debiased.options.command import OptionError
from tests.model_makers import header_only, put_into_cache
from tests.small_models import load_pipeline

RANK = 2
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT_LAYERS = [f"encoder.layers.0.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")]


def write_lora(path, kohya=True):
    """Write a LoRA of a layer of the U-Net and four of the text encoder; return A and B, and the text's A."""
    generator = torch.Generator().manual_seed(3)
    down = torch.randn(RANK, 32, generator=generator)
    up = torch.randn(32, RANK, generator=generator)
    text_down = torch.randn(RANK, 32, generator=generator)
    if kohya:
        stems = [f"lora_unet_{LAYER}", *(f"lora_te_text_model_{layer}" for layer in TEXT_LAYERS)]
        stems = [stem.replace(".", "_") for stem in stems]
        ends = (".lora_down.weight", ".lora_up.weight")
    else:
        stems = [f"unet.{LAYER}", *(f"text_encoder.text_model.{layer}" for layer in TEXT_LAYERS)]
        ends = (".lora_A.weight", ".lora_B.weight")
    tensors = {stems[0] + ends[0]: down, stems[0] + ends[1]: up}
    for stem in stems[1:]:
        tensors |= {stem + ends[0]: text_down.clone(), stem + ends[1]: up.clone()}
    if kohya:
        tensors |= {f"{stem}.alpha": torch.tensor(1.0) for stem in stems}
    save_file(tensors, path)
    return down, up, text_down


@pytest.mark.parametrize(
    ("text", "name", "scale"),
    [
        ("toon.safetensors", "toon.safetensors", 1.0),
        ("toon.safetensors:0.8", "toon.safetensors", 0.8),
        ("toon.safetensors:-1", "toon.safetensors", -1.0),
        ("someone/toon:.5", "someone/toon", 0.5),
        (r"C:\loras\toon.safetensors", r"C:\loras\toon.safetensors", 1.0),
        (r"C:\loras\toon.safetensors:1.5", r"C:\loras\toon.safetensors", 1.5),
        ("a:b:2", "a:b", 2.0),
        ("v1.5:detail", "v1.5:detail", 1.0),
    ],
)
def test_only_a_number_behind_the_last_colon_is_a_scale(text, name, scale):
    assert parse_lora(text) == Lora(name, scale)


def test_a_file_with_a_number_behind_a_colon_in_its_name_is_a_file(tmp_path):
    path = tmp_path / "toon:2"
    path.write_bytes(b"")
    assert parse_lora(str(path)) == Lora(str(path), 1.0)


@pytest.mark.parametrize("text", ["toon:0", "toon:nan", "toon:inf", ":0.5", ""])
def test_no_name_and_no_real_scale_are_refused(text):
    with pytest.raises(ModelError, match=r"--lora must be FILE_OR_NAME\[:SCALE\]"):
        parse_lora(text)
    with pytest.raises(OptionError, match=r"FILE_OR_NAME"):
        choose_model("menagerie", "cpu", [text])


@pytest.mark.parametrize("kohya", [True, False], ids=["kohya", "diffusers"])
def test_its_product_is_added_to_the_weights(kohya, eps_folder, tmp_path):
    pytest.importorskip("peft")
    down, up, text_down = write_lora(tmp_path / "toon.safetensors", kohya)
    plain = load_pipeline(str(eps_folder))
    changed = load_pipeline(str(eps_folder), loras=(Lora(str(tmp_path / "toon.safetensors"), 0.5),))
    factor = 0.5 / RANK if kohya else 0.5  # kohya's files divide by the rank: alpha / rank, alpha 1
    before, after = (p.unet.get_submodule(LAYER).weight for p in (plain, changed))
    torch.testing.assert_close(after, before + factor * up @ down)
    for layer in TEXT_LAYERS:
        before, after = (p.text_encoder.get_submodule(layer).weight for p in (plain, changed))
        torch.testing.assert_close(after, before + factor * up @ text_down)
    others = [k for k in plain.unet.state_dict() if k != f"{LAYER}.weight"]
    assert set(changed.unet.state_dict()) == set(plain.unet.state_dict()), "nothing stays beside the weights"
    assert all(torch.equal(plain.unet.state_dict()[k], changed.unet.state_dict()[k]) for k in others)


def test_two_are_added_each_with_its_scale(eps_folder, tmp_path):
    pytest.importorskip("peft")
    down, up, _ = write_lora(tmp_path / "one.safetensors", kohya=False)
    twice = tmp_path / "two.safetensors"
    save_file({k: v * 2 for k, v in load_file(tmp_path / "one.safetensors").items()}, twice)
    loras = (Lora(str(tmp_path / "one.safetensors"), 0.5), Lora(str(twice), -0.25))
    before = load_pipeline(str(eps_folder)).unet.get_submodule(LAYER).weight
    after = load_pipeline(str(eps_folder), loras=loras).unet.get_submodule(LAYER).weight
    torch.testing.assert_close(after, before + (0.5 - 0.25 * 4) * up @ down)


def test_one_that_fits_in_part_is_refused(eps_folder, tmp_path):
    pytest.importorskip("peft")
    path = tmp_path / "toon.safetensors"
    write_lora(path, kohya=False)
    tensors = load_file(path)
    for end in ("A", "B"):
        tensors[f"unet.down_blocks.7.attentions.0.proj_in.lora_{end}.weight"] = torch.zeros(2, 2)
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"a LoRA must fit its model.*toon.safetensors"):
        load_pipeline(str(eps_folder), loras=(Lora(str(path)),))


def test_without_peft_it_says_how_to_get_it(monkeypatch, eps_folder, tmp_path):
    write_lora(tmp_path / "toon.safetensors")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs the package peft.*pip install peft"):
        check_loras(str(eps_folder), (Lora(str(tmp_path / "toon.safetensors")),))


KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
OTHERS = {
    "of 2.x": ({KOHYA: (4, 1024)}, "is for Stable Diffusion 2.x; the model is Stable Diffusion 1.x"),
    "of SDXL": ({KOHYA: (4, 2048)}, r"is for Stable Diffusion XL \(SDXL\)"),
    "of SDXL, by its encoder": (
        {"lora_te2_text_model_q.lora_down.weight": (4, 4)},
        r"is for Stable Diffusion XL",
    ),
    "of Flux": ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 4)}, "is for Flux"),
    "a LoHa": ({"lora_unet_mid_block.hada_w1_a": (4, 4)}, "a LoHa or LoKr"),
    "a checkpoint": (
        {"model.diffusion_model.joint_blocks.0.x": (4,)},
        "is Stable Diffusion 3. A whole checkpoint",
    ),
    "an embedding": ({"emb_params": (2, 768)}, "is a textual inversion embedding"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_file_is_refused_by_name(name, tmp_path):
    shapes, message = OTHERS[name]
    with pytest.raises(ModelError, match=message):
        check_lora(header_only(tmp_path / "toon.safetensors", shapes), context=768)


def test_a_pickle_and_a_wrong_name_are_refused(tmp_path):
    (tmp_path / "toon.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="--lora FILE must be safetensors.*python -m sjc_debiased.convert"):
        lora_file(Lora(str(tmp_path / "toon.pt")))
    for name in ("toon.safetensors", "folder/toon.safetensors", "/nowhere/toon", "toon"):
        with pytest.raises(ModelError, match=r"must be a .safetensors file, a folder or a hub name"):
            lora_file(Lora(name))


def test_it_is_found_in_a_folder_and_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "folder"
    folder.mkdir()
    write_lora(folder / "toon.safetensors")
    assert lora_file(Lora(str(folder))) == folder / "toon.safetensors"
    snapshot = put_into_cache(tmp_path / "cache", "someone/toon", folder)
    assert lora_file(Lora("someone/toon"), local_files_only=True) == snapshot / "toon.safetensors"
    write_lora(snapshot / "other.safetensors")
    with pytest.raises(
        OSError, match=r"lacks pytorch_lora_weights.safetensors, or one .safetensors file alone"
    ):
        lora_file(Lora("someone/toon"), local_files_only=True)
    assert lora_file(Lora("someone/toon/other.safetensors"), True) == snapshot / "other.safetensors"
    write_lora(snapshot / "pytorch_lora_weights.safetensors")
    assert lora_file(Lora("someone/toon"), True) == snapshot / "pytorch_lora_weights.safetensors"


def test_it_is_part_of_what_the_model_is(eps_folder, tmp_path):
    path = tmp_path / "toon.safetensors"
    write_lora(path)
    plain = identify(choose_model(str(eps_folder), "cpu"))
    with_it = identify(choose_model(str(eps_folder), "cpu", [str(path)]))
    weaker = identify(choose_model(str(eps_folder), "cpu", [f"{path}:0.5"]))
    write_lora(path, kohya=False)
    other = identify(choose_model(str(eps_folder), "cpu", [str(path)]))
    assert len({plain, with_it, weaker, other}) == 4
    assert {weights_of(x) for x in (plain, with_it, weaker, other)} == {plain}


def test_a_run_with_one_is_another_run_and_says_which(command, tmp_path, capsys):
    pytest.importorskip("peft")
    path = tmp_path / "toon.safetensors"
    write_lora(path)
    code, folders = command("--lora", f"{path}:0.5", "--n_steps", "2")
    assert code == 0
    (folder,) = folders
    recorded = json.loads((folder / "options.json").read_text())
    assert recorded["model_identity"]["loras"][0] | {"sha256": ""} == {
        "name": str(path),
        "scale": 0.5,
        "sha256": "",
    }
    assert "+ lora" in recorded["resolved"]["fingerprint"]
    code, folders = command("--n_steps", "2")
    assert (code, len(folders)) == (0, 2)
    code, folders = command("--lora", str(tmp_path / "gone.safetensors"))
    assert (code, len(folders)) == (2, 2)
    assert "must be a .safetensors file, a folder or a hub name" in capsys.readouterr().err

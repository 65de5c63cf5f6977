"""Model files that people have: each loads and denoises, or is refused with its own message.

`docs/model_files.md` is this table in words.
"""

import hashlib
import io
import json
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt_sd import StableDiffusion
from prompts.hub import download_command
from prompts.masked_lm import DEFAULT_MASKED_LM
from prompts.masked_lm import PATTERNS as BERT_PATTERNS
from sjc_debiased.evaluation.clip_similarity import CLIP
from sjc_debiased.evaluation.clip_similarity import PATTERNS as CLIP_PATTERNS
from sjc_debiased.making import provenance
from sjc_debiased.models import single_file
from sjc_debiased.models.choose import SD15, choose_model, fingerprint
from sjc_debiased.models.loading import check_prompts
from sjc_debiased.models.pipelines import STABLE_DIFFUSION
from tests.model_makers import (
    TEXT,
    UNET,
    VAE,
    copy,
    header_only,
    original,
    put_into_cache,
    rename_weights,
    write_folder,
    write_index,
)
from tests.small_models import load_pipeline

CPU = torch.device("cpu")
SECONDS = 10  # for a refusal


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Small models with CLIP's tokenizer: folders, and the same as single files, of 1.x and 2.x."""
    root = tmp_path_factory.mktemp("small")
    made = SimpleNamespace(root=root)
    for name, sd2 in (("sd1", False), ("sd2", True)):
        folder = write_folder(root / name, sd2)
        setattr(made, name, folder)
        setattr(made, f"{name}_tensors", original(folder, sd2))
        shutil.copytree(
            folder, root / "configs" / name, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer")
        )
    return made


@pytest.fixture
def make(small, tmp_path, monkeypatch):
    """Return what the rows of the table build from, with an empty hub cache and small configurations."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(single_file, "CONFIGS", small.root / "configs")
    return SimpleNamespace(
        new=tmp_path / "model",
        file=tmp_path / "model.safetensors",
        cache=tmp_path / "cache",
        sd1=small.sd1,
        sd2=small.sd2,
        sd1_tensors=dict(small.sd1_tensors),
        sd2_tensors=dict(small.sd2_tensors),
    )


def a_folder(make):
    return copy(make.sd1, make.new)


def a_v_folder(make):
    return copy(make.sd2, make.new, scheduler={"prediction_type": "v_prediction"})


def an_fp16_folder(make):
    return rename_weights(copy(make.sd1, make.new), ".fp16.safetensors")


def a_folder_with_both(make):
    copy(make.sd1, make.new)
    for file in (UNET, VAE, TEXT):  # what the variant holds must not be read
        (make.new / file.replace(".safetensors", ".fp16.safetensors")).write_bytes(b"no tensors")
    return make.new


def in_shards(folder, spelling):
    """Split the U-Net of a folder into two fp16 shards with an index, in one of the two spellings."""
    path = folder / UNET
    tensors = {k: v.half() for k, v in load_file(path).items()}
    path.unlink()
    names = sorted(tensors)
    where = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = spelling.format(i)
        save_file({n: tensors[n] for n in part}, path.with_name(file), {"format": "pt"})
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    path.with_name("diffusion_pytorch_model.safetensors.index.fp16.json").write_text(json.dumps(index))
    return folder


def fp16_shards(make):
    return in_shards(copy(make.sd1, make.new), "diffusion_pytorch_model.fp16-0000{}-of-00002.safetensors")


def fp16_shards_in_the_old_spelling(make):
    return in_shards(copy(make.sd1, make.new), "diffusion_pytorch_model-0000{}-of-00002.fp16.safetensors")


def a_folder_of_2022(make):
    """With the names, the tokenizer files and the scheduler that Stable Diffusion 1.5 itself has."""
    copy(make.sd1, make.new, scheduler={"_class_name": "PNDMScheduler", "skip_prk_steps": True})
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    autoencoder = {}
    for name, tensor in load_file(make.new / VAE).items():
        new = next((n for n in old_names if f".{n}." in name), None)
        autoencoder[name.replace(new, old_names[new]) if new else name] = tensor
    assert any("proj_attn" in name for name in autoencoder)
    save_file(autoencoder, make.new / VAE, {"format": "pt"})
    text = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(make.new / TEXT).items()}
    text["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(text, make.new / TEXT, {"format": "pt"})
    write_old_tokenizer(make.new / "tokenizer")
    path = make.new / "model_index.json"
    index = json.loads(path.read_text())
    index |= {"scheduler": ["diffusers", "PNDMScheduler"]}
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    path.write_text(json.dumps(index))
    return make.new


def one_file(make):
    save_file(make.sd1_tensors, make.file)
    return make.file


def one_file_of_2(make):
    save_file(make.sd2_tensors, make.file)
    return make.file


def one_fp16_file(make):
    save_file({k: v.half() for k, v in make.sd1_tensors.items()}, make.file)
    return make.file


def one_file_with_more_in_it(make):
    """Training leaves a second set of weights and counters; merging leaves positions."""
    more = {
        f"model_ema.{k.split('.', 1)[1].replace('.', '')}": v.clone() for k, v in make.sd1_tensors.items()
    }
    ids = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file({**make.sd1_tensors, **more, **ids, "model_ema.decay": torch.tensor(0.9)}, make.file)
    return make.file


def a_cached_name(make):
    put_into_cache(make.cache, "someone/a-model", make.sd1)
    return "someone/a-model"


def a_cached_fp16_name(make):
    put_into_cache(make.cache, "someone/a-model", an_fp16_folder(make))
    return "someone/a-model"


def a_dead_name_in_the_cache(make):
    put_into_cache(make.cache, "runwayml/stable-diffusion-v1-5", make.sd1)
    return "runwayml/stable-diffusion-v1-5"


LOADS = [
    a_folder,
    a_v_folder,
    an_fp16_folder,
    a_folder_with_both,
    fp16_shards,
    fp16_shards_in_the_old_spelling,
    a_folder_of_2022,
    one_file,
    one_file_of_2,
    one_fp16_file,
    one_file_with_more_in_it,
    a_cached_name,
    a_cached_fp16_name,
    a_dead_name_in_the_cache,
]


def load(wanted):
    choice = choose_model(str(wanted), "cpu")
    assert fingerprint(choice.location, local_files_only=True) != "out of reach"
    check_prompts(choice.location, ["a smiling cat"], local_files_only=True)
    return StableDiffusion(load_pipeline(choice.location, local_files_only=True), CPU, torch.float32)


@pytest.mark.parametrize("row", LOADS, ids=lambda row: row.__name__)
def test_it_loads_and_denoises_as_the_model_that_it_is(row, make, capfd):
    sd = load(row(make))
    original = make.sd2 if row in (a_v_folder, one_file_of_2) else make.sd1
    reference = StableDiffusion(load_pipeline(str(original)), CPU, torch.float32)
    reference.v_prediction = sd.v_prediction  # which of the two it is has its own test
    noised, text = torch.randn(1, 4, 8, 8), sd.condition(["a cat"])
    assert not torch.equal(text.parts[0], sd.condition(["a dog"]).parts[0])
    arguments = noised, sd.sigmas[300:301], text, torch.tensor([2.0])
    exact = "fp16" not in row.__name__
    tolerance = {"atol": 0, "rtol": 0} if exact else {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(text.parts, reference.condition(["a cat"]).parts, **tolerance)
    torch.testing.assert_close(sd.denoise(*arguments), reference.denoise(*arguments), **tolerance)
    torch.testing.assert_close(sd.decode(noised), reference.decode(noised), **tolerance)
    out, err = capfd.readouterr()
    said = [line for line in err.split("\r") if line.strip() and not line.startswith("loading the model:")]
    assert not said, "what libraries say while they load"
    assert all("predicts" in line for line in out.splitlines())


def test_the_v_folder_predicts_v_and_the_other_noise(make):
    assert load(a_v_folder(make)).v_prediction
    assert not load(make.sd1).v_prediction


def broken_off(file):
    def row(make):
        path = copy(make.sd1, make.new) / file
        path.write_bytes(path.read_bytes()[:-100])
        return make.new

    return row


def without(*files):
    def row(make):
        copy(make.sd1, make.new)
        for file in files:
            (make.new / file).unlink()
        return make.new

    return row


def with_text(file, text):
    def row(make):
        (copy(make.sd1, make.new) / file).write_text(text)
        return make.new

    return row


def with_config(**changes):
    return lambda make: copy(make.sd1, make.new, **changes)


def with_index(**parts):
    index = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    return with_text("model_index.json", json.dumps(index | parts))


def of_class(name):
    return lambda make: write_index(make.new, name)


def tensors(shapes):
    return lambda make: header_only(make.file, shapes)


def sd1_with(**changes):
    """A single file of 1.x in which some tensors are of another shape, or absent (None)."""

    def row(make):
        shapes = {k: tuple(v.shape) for k, v in make.sd1_tensors.items()}
        for mark, shape in changes.items():
            for name in [n for n in shapes if mark in n.replace(".", "_")]:
                if shape is None:
                    del shapes[name]
                else:
                    shapes[name] = shape
        return header_only(make.file, shapes)

    return row


def a_broken_off_file(make):
    path = one_file(make)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def a_file_that_lacks_a_tensor(make):
    del make.sd1_tensors["model.diffusion_model.out.2.weight"]
    return one_file(make)


def a_unet_that_lacks_a_tensor(make):
    path = copy(make.sd1, make.new) / UNET
    kept = {k: v for k, v in load_file(path).items() if k != "conv_out.weight"}
    save_file(kept, path, {"format": "pt"})
    return make.new


def a_unet_of_another_model(make):
    path = copy(make.sd1, make.new) / UNET
    save_file({k: v[..., :1].contiguous() for k, v in load_file(path).items()}, path, {"format": "pt"})
    return make.new


def pickles_alone(make):
    copy(make.sd1, make.new)
    for file in (UNET, VAE, TEXT):
        path = make.new / file
        torch.save(
            load_file(path),
            path.with_name({TEXT: "pytorch_model.bin"}.get(file, "diffusion_pytorch_model.bin")),
        )
        path.unlink()
    return make.new


def a_ckpt(make):
    path = make.file.with_suffix(".ckpt")
    torch.save({"state_dict": make.sd1_tensors}, path)
    return path


def another_tokenizer(make):
    from sjc_debiased.menagerie.tokenizers import clip_tokenizer

    copy(make.sd1, make.new)
    shutil.rmtree(make.new / "tokenizer")
    clip_tokenizer().save_pretrained(make.new / "tokenizer")
    return make.new


def old_tokenizer_files(drop=None, cut=None):
    """A folder whose tokenizer is in vocab.json and merges.txt, one of them missing or cut."""

    def row(make):
        copy(make.sd1, make.new)
        write_old_tokenizer(make.new / "tokenizer")
        if drop:
            (make.new / "tokenizer" / drop).unlink()
        if cut:
            path = make.new / "tokenizer" / cut
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = "".join(lines[:10_000]) if len(lines) > 1 else lines[0][:200_000]
            path.write_text(whole, encoding="utf-8")
        return make.new

    return row


def write_old_tokenizer(folder):
    """Turn a tokenizer folder into one of 2022: vocab.json, merges.txt and two files about special tokens."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *(m if isinstance(m, str) else " ".join(m) for m in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shape = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    first, last = ({"content": f"<|{name}oftext|>", **shape} for name in ("start", "end"))
    special = {"bos_token": first, "eos_token": last, "unk_token": last}
    tagged = {name: {"__type": "AddedToken", **token} for name, token in special.items()}
    config = {
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"add_prefix_space": False, "pad_token": "<|endoftext|>", **config, **tagged})
    )
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "pad_token": "<|endoftext|>"}))


def an_incomplete_cache(make):
    snapshot = put_into_cache(make.cache, "someone/a-model", make.sd1)
    (snapshot / UNET).unlink()
    return "someone/a-model"


def named(text):
    return lambda make: text


CONV = "model.diffusion_model.input_blocks.0.0.weight"
REFUSED = {
    "an SDXL folder": (
        of_class("StableDiffusionXLPipeline"),
        r"is Stable Diffusion XL \(SDXL\).*Supported: Stable",
    ),
    "an SDXL name": (
        named("stabilityai/stable-diffusion-xl-base-1.0"),
        r"Stable Diffusion XL \(SDXL\).*Supported",
    ),
    "an SDXL file": (
        tensors({"conditioner.embedders.1.model.ln_final.bias": (4,), CONV: (8, 4, 3, 3)}),
        r"SDXL",
    ),
    "a Stable Diffusion 3 folder": (
        of_class("StableDiffusion3Pipeline"),
        "is Stable Diffusion 3 .*Supported",
    ),
    "a Stable Diffusion 3 file": (
        tensors({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.bias": (8,)}),
        "is Stable Diffusion 3. Supported",
    ),
    "a Flux folder": (of_class("FluxPipeline"), "is Flux .*Supported"),
    "a Flux name": (named("black-forest-labs/FLUX.1-dev"), "is Flux. .*Supported"),
    "a Flux file": (tensors({"double_blocks.0.img_attn.qkv.weight": (8, 8)}), "is Flux. Supported"),
    "a second stage of DeepFloyd": (of_class("IFSuperResolutionPipeline"), "is DeepFloyd IF's second stage"),
    "the name of one": (named("DeepFloyd/IF-II-L-v1.0"), "is DeepFloyd IF's second stage.*Supported"),
    "a Kandinsky folder": (of_class("KandinskyV22Pipeline"), "is Kandinsky"),
    "an inpainting folder": (of_class("StableDiffusionInpaintPipeline"), "an inpainting model .*Supported"),
    "an inpainting U-Net": (
        with_config(unet={"in_channels": 9}),
        "4 latent channels.*takes 9, as inpainting",
    ),
    "an inpainting file": (sd1_with(input_blocks_0_0_weight=(32, 9, 3, 3)), "is an inpainting model"),
    "a depth file": (sd1_with(input_blocks_0_0_weight=(32, 5, 3, 3)), "is a depth-to-image model"),
    "an XL U-Net in a folder": (with_config(unet={"addition_embed_type": "text_time"}), "ask for text alone"),
    "a model that predicts the picture": (
        with_config(scheduler={"prediction_type": "sample"}),
        "epsilon or v",
    ),
    "parts of two models": (with_config(unet={"cross_attention_dim": 64}), "parts of two models"),
    "a pipeline with code of its own": (
        with_index(unet=["mine", "MyUNet"]),
        r"classes of diffusers or transformers.*unet: \['mine', 'MyUNet'\]",
    ),
    "a LoRA as a model": (
        tensors({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 32)}),
        r"is a LoRA. Give it beside a model: --model sd15 --lora .*model\.safetensors",
    ),
    "an autoencoder alone": (
        tensors({"first_stage_model.encoder.conv_in.weight": (8, 3, 3, 3)}),
        r"an autoencoder \(VAE\) alone. Name the whole",
    ),
    "a ControlNet": (tensors({"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)}), "is a ControlNet"),
    "a U-Net alone": (
        tensors({"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3), "time_embedding.linear_1.bias": (8,)}),
        "is a U-Net alone. Name the whole",
    ),
    "an embedding": (tensors({"emb_params": (2, 768)}), "a textual inversion embedding"),
    "other tensors": (
        tensors({"grid.density": (4, 4)}),
        r"is nothing known here. Its first tensor is 'grid.density'",
    ),
    "a file without its text encoder": (
        sd1_with(cond_stage_model=None),
        "without its text encoder. Name the whole",
    ),
    "a file without its autoencoder": (sd1_with(first_stage_model=None), r"without its autoencoder \(VAE\)"),
    "a file that lacks a tensor": (
        a_file_that_lacks_a_tensor,
        r"must have the tensors of Stable Diffusion 1.x.*tensors are missing",
    ),
    "a broken-off file": (a_broken_off_file, r"must be whole. .* has \d+ of \d+ bytes.*Download it again"),
    "a pickled checkpoint": (
        a_ckpt,
        r"is a pickle, which can run code.*python -m sjc_debiased.convert .*model\.ckpt",
    ),
    "a folder of pickles": (pickles_alone, r"it has pickles \(.*bin.*python -m sjc_debiased.convert FOLDER"),
    "a file of another format": (lambda make: with_file(make, "model.gguf"), "is a .gguf file. Supported"),
    "a pointer of git-lfs": (
        with_text(UNET, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
        "the pointer that git leaves without git-lfs. Run `git lfs pull`",
    ),
    "a broken-off U-Net": (broken_off(UNET), r"must be whole. .*unet.* has \d+ of \d+ bytes"),
    "a broken-off text encoder": (broken_off(TEXT), r"must be whole. .*text_encoder.* has \d+ of \d+ bytes"),
    "an empty file of weights": (with_text(VAE, ""), "a readable safetensors file.*vae.*0 bytes"),
    "a U-Net that lacks a tensor": (
        a_unet_that_lacks_a_tensor,
        "its unet lacks 1 tensors, such as conv_out.weight",
    ),
    "a U-Net of other shapes": (
        a_unet_of_another_model,
        "weights must fit its configuration.*Download it again",
    ),
    "no weights of the U-Net": (
        without(UNET),
        "lacks unet/diffusion_pytorch_model.safetensors. Download the whole",
    ),
    "no tokenizer.json": (
        without("tokenizer/tokenizer.json"),
        "lacks tokenizer/vocab.json, tokenizer/merges.txt",
    ),
    "no vocab.json": (old_tokenizer_files(drop="vocab.json"), "lacks tokenizer/vocab.json"),
    "no merges.txt": (old_tokenizer_files(drop="merges.txt"), "lacks tokenizer/merges.txt"),
    "a cut vocab.json": (
        old_tokenizer_files(cut="vocab.json"),
        "tokenizer must be readable.*Download its tokenizer/",
    ),
    "a cut merges.txt": (
        old_tokenizer_files(cut="merges.txt"),
        "merges must make its tokens.*merges.txt is cut",
    ),
    "the tokenizer of another model": (
        another_tokenizer,
        "must have the text encoder's 49408 tokens. It has 637",
    ),
    "no scheduler": (without("scheduler/scheduler_config.json"), "lacks scheduler/scheduler_config.json"),
    "wrong JSON in the index": (with_text("model_index.json", "{"), r"readable model_index\.json"),
    "wrong JSON in the U-Net": (
        with_text("unet/config.json", "[1, 2"),
        "configuration must be readable JSON",
    ),
    "an empty folder": (lambda make: make.new.mkdir() or make.new, r"readable model_index\.json"),
    "a file that is not there": (
        named("models/v1-5.safetensors"),
        r"FILE must be there. 'models/v1-5.safetensors'",
    ),
    "a ckpt that is not there": (named("v1-5.ckpt"), r"FILE must be there. 'v1-5.ckpt'"),
    "a misspelt alias": (named("sd51"), r"must be auto, sd15, .*'sd51'.*Check the spelling"),
    "a name that is not in the cache": (
        named("someone/a-model"),
        r"lacks model_index.json, unet/config.json.*unet/diffusion_pytorch_model.safetensors.*looked "
        r"for in the cache \(.*models--someone--a-model\), nowhere else: --local_files_only.*"
        r"hf download someone/a-model --include",
    ),
    "half of a model in the cache": (
        an_incomplete_cache,
        r"lacks unet/diffusion_pytorch_model.safetensors; looked for in the cache",
    ),
}


def with_file(make, name):
    path = make.new.parent / name
    path.write_bytes(b"GGUF")
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name_in_seconds(name, make, tmp_path, capsys):
    import run_sjc

    row, message = REFUSED[name]
    wanted = str(row(make))
    began = time.monotonic()
    root = tmp_path / "runs"
    code = run_sjc.main(
        [
            *("--prompt", "a smiling cat", "--model", wanted, "--run_root", str(root), "--local_files_only"),
            *("--n_steps", "60", "--resolution", "12", "--device", "cpu", "--precision", "float32"),
        ]
    )
    assert time.monotonic() - began < SECONDS
    assert code == 2
    said = capsys.readouterr().err
    assert re.search(message, said, re.DOTALL), said
    assert "Traceback" not in said
    assert not list(root.glob("*")), "no run folder of a model that cannot be used"


def first_column(text):
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {name.strip() for row in rows for name in row.split(",")}


def test_the_document_has_every_row():
    document = (Path(__file__).parents[1] / "docs" / "model_files.md").read_text()
    loads, refused = document.split("## What is refused")
    assert {row.__name__.replace("_", " ") for row in LOADS} <= first_column(loads)
    assert set(REFUSED) <= first_column(refused)


def test_the_document_downloads_by_the_same_patterns():
    document = (Path(__file__).parents[1] / "docs" / "model_files.md").read_text()
    for name, patterns in (
        (SD15, STABLE_DIFFUSION.patterns),
        (DEFAULT_MASKED_LM, BERT_PATTERNS),
        (CLIP, CLIP_PATTERNS),
    ):
        assert download_command(name, patterns) in document.splitlines()


def test_a_bar_counts_the_bytes_of_the_parts(tmp_path, monkeypatch):
    from sjc_debiased.models import bars

    shown = []

    class Bar(bars.tqdm):
        def __init__(self, *args, **fields):
            super().__init__(*args, **fields | {"file": io.StringIO()})

        def update(self, n=1):
            shown.append((n, self.total))
            return super().update(n)

    monkeypatch.setattr(bars, "tqdm", Bar)
    sizes = {"unet": (700, 300), "vae": (50,)}
    files = {part: [f"{part}{i}" for i in range(len(own))] for part, own in sizes.items()}
    for part, own in sizes.items():
        for file, size in zip(files[part], own):
            (tmp_path / file).write_bytes(bytes(size))
    assert list(bars.parts_with_bar(tmp_path, files)) == ["unet", "vae"]
    assert shown == [(1000, 1050), (50, 1050)]


@pytest.mark.parametrize("name", ["bert", "../bert"])
def test_a_models_own_language_model_counts_whatever_it_is_called(make_pipeline, name):
    folder = make_pipeline("epsilon")
    (folder / "profile.json").write_text(json.dumps({"masked_lm": name}))
    (folder / name).mkdir(exist_ok=True)
    found = set()
    for weights in (b"one", b"two"):
        (folder / name / "model.safetensors").write_bytes(weights)
        found.add(fingerprint(str(folder)))
    assert len(found) == 2


def test_a_run_names_the_weights_of_its_model_and_of_no_other(make_pipeline):
    """A folder inside that is a model of its own does not count, the language model beside it does."""
    folder = make_pipeline("epsilon")
    (folder / "profile.json").write_text('{"masked_lm": "../bert"}')
    for inside in ("another/unet", "../bert"):
        (folder / inside).mkdir(parents=True, exist_ok=True)
        (folder / inside / "model.safetensors").write_bytes(b"some")
    (folder / "another" / "model_index.json").write_text("{}")
    named = provenance._identity(str(folder))["sha256"]
    assert named["../bert/model.safetensors"] == hashlib.sha256(b"some").hexdigest()
    assert {Path(name).parts[0] for name in named} == {"..", "unet", "vae", "text_encoder"}

"""Small models in the real formats, with random weights, and the golden numbers."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # the GPU kernels run on the CPU, slowly

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    def load(name):
        return np.load(GOLDEN / f"{name}.npz", allow_pickle=False)

    return load


@pytest.fixture(scope="session")
def make_pipeline(tmp_path_factory):
    """Return a function that writes a tiny Stable Diffusion folder and returns its path."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from sjc_debiased.menagerie.tokenizers import CONTEXT, clip_tokenizer

    def make(prediction_type="epsilon"):
        torch.manual_seed(0)
        tokenizer = clip_tokenizer()
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(32, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=32,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            norm_num_groups=4,
        )
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            clip_sample=False,
            set_alpha_to_one=False,
        )
        folder = tmp_path_factory.mktemp(prediction_type)
        StableDiffusionPipeline(
            vae=vae,
            text_encoder=CLIPTextModel(text),
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
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
    from transformers import BertConfig, BertForMaskedLM

    from sjc_debiased.menagerie.tokenizers import bert_tokenizer

    torch.manual_seed(0)
    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("bert")
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def command(eps_folder, tmp_path):
    """Return a function that runs the command on a tiny model and returns exit code and run folders."""

    import run_sjc

    def call(*arguments, model=eps_folder, prompt="a smiling cat"):
        argv = [
            *("--prompt", prompt, "--model", str(model), "--run_root", str(tmp_path / "runs")),
            *("--n_steps", "60", "--resolution", "12", "--guidance", "2"),
            *("--emptiness_weight", "1", "--precision", "float32", "--device", "cpu"),
            *arguments,
        ]
        code = run_sjc.main(argv)
        root = tmp_path / "runs"
        folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.exists() else []
        return code, folders

    return call

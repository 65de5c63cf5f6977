"""The hub is asked once and briefly; what a run does not need is not fetched; what is missing is named."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file

from adapt_sd import StableDiffusion
from prompts import hub
from prompts.hub import MissingError
from prompts.masked_lm import PATTERNS as BERT_PATTERNS
from prompts.masked_lm import Bert
from sjc_debiased.models.choose import SD15, choose_model, fingerprint
from sjc_debiased.models.files import small_files, weights
from sjc_debiased.models.finding import find_model
from sjc_debiased.models.pipelines import STABLE_DIFFUSION
from sjc_debiased.models.tensor_files import ModelError
from tests.model_makers import (
    REVISION,
    TEXT,
    UNET,
    VAE,
    Hub,
    copy,
    put_into_cache,
    rename_weights,
    write_index,
)
from tests.small_models import load_pipeline, write_if

ROOT = Path(__file__).parents[1]

# The files of the two repositories, as their pages list them.
SD15_FILES = """
.gitattributes README.md model_index.json v1-inference.yaml
v1-5-pruned-emaonly.ckpt v1-5-pruned-emaonly.safetensors v1-5-pruned.ckpt v1-5-pruned.safetensors
feature_extractor/preprocessor_config.json scheduler/scheduler_config.json
safety_checker/config.json safety_checker/model.fp16.safetensors safety_checker/model.safetensors
safety_checker/pytorch_model.bin safety_checker/pytorch_model.fp16.bin
text_encoder/config.json text_encoder/model.fp16.safetensors text_encoder/model.safetensors
text_encoder/pytorch_model.bin text_encoder/pytorch_model.fp16.bin
tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json
unet/config.json unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.fp16.bin
unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.bin
unet/diffusion_pytorch_model.non_ema.safetensors unet/diffusion_pytorch_model.safetensors
vae/config.json vae/diffusion_pytorch_model.bin vae/diffusion_pytorch_model.fp16.bin
vae/diffusion_pytorch_model.fp16.safetensors vae/diffusion_pytorch_model.safetensors
""".split()
BERT_FILES = """
.gitattributes LICENSE README.md config.json flax_model.msgpack model.onnx model.safetensors pytorch_model.bin
rust_model.ot tf_model.h5 tokenizer.json tokenizer_config.json vocab.txt
coreml/fill-mask/float32_model.mlpackage/Manifest.json
coreml/fill-mask/float32_model.mlpackage/Data/com.apple.CoreML/weights/weight.bin
""".split()


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Return a function that lets the hub library talk to an address, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "_silent", {})
    monkeypatch.setattr(hub, "_answers", {})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def to(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        return tmp_path / "cache"

    return to


@pytest.fixture
def serve(online):
    """Return a function that serves repositories as the hub does."""
    servers = []

    def start(gated=(), **repositories):
        served = {name.replace("__", "/"): folder for name, folder in repositories.items()}
        servers.append(Hub(served, gated))
        servers[-1].cache = online(servers[-1].address)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def silence():
    """An address that takes a connection and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def everything(folder, target):
    """Copy a pipeline into a repository as rich as Stable Diffusion 1.5's, with 32 MB that nobody needs."""
    copy(folder, target)
    for file in SD15_FILES:
        path = target / file
        if not path.exists() and "tokenizer" not in file:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes(1_000_000))
    return target


def test_a_model_of_the_hub_is_fetched_as_far_as_it_is_needed(serve, eps_folder, tmp_path, capsys):
    server = serve(someone__model=everything(eps_folder, tmp_path / "repository"))
    choice = choose_model("someone/model", "cpu")
    assert fingerprint(choice.location) == REVISION
    found = find_model(choice.location)
    assert set(found.to_fetch) == {UNET, VAE, TEXT}
    assert not any(".safetensors" in file for file in server.downloaded()), (
        "nothing large before it is decided"
    )
    assert "will be fetched from the hub: unet/diffusion_pytorch_model.safetensors (" in str(found)
    sd = StableDiffusion(load_pipeline(choice.location), torch.device("cpu"), torch.float32)
    here = StableDiffusion(load_pipeline(str(eps_folder)), torch.device("cpu"), torch.float32)
    assert torch.equal(*(model.condition(["a cat"]).parts[0] for model in (sd, here)))
    wanted = {p.relative_to(eps_folder).as_posix() for p in eps_folder.rglob("*") if p.is_file()}
    assert server.downloaded() == wanted
    assert [r for r in server.asked if "/api/models" in r] == ["GET /api/models/someone/model?blobs=true"]
    server.asked.clear()
    again = load_pipeline(choice.location)
    assert again and not server.asked, "what is whole in the cache is nobody's business"


def test_an_fp16_repository_is_fetched(serve, eps_folder, tmp_path):
    half, file = tmp_path / "half", UNET.replace(".safetensors", ".fp16.safetensors")
    server = serve(someone__half=rename_weights(copy(eps_folder, half), ".fp16.safetensors"))
    loaded, stored = load_pipeline("someone/half").unet.state_dict(), load_file(half / file)
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name].half(), tensor) for name, tensor in stored.items())
    assert file in server.downloaded()


def test_another_class_is_refused_before_anything_else_is_fetched(serve, tmp_path):
    repository = write_index(tmp_path / "repository", "StableDiffusionXLPipeline")
    (repository / "unet").mkdir()
    (repository / UNET).write_bytes(bytes(1_000_000))
    server = serve(someone__xl=repository)
    with pytest.raises(
        ModelError, match=r"someone/xl is Stable Diffusion XL \(SDXL\) \(StableDiffusionXLPipeline\)"
    ):
        find_model("someone/xl")
    assert server.downloaded() == {"model_index.json"}


def test_a_repository_of_single_files_names_them(serve, tmp_path):
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "toon.safetensors").write_bytes(b"")
    server = serve(someone__toon=tmp_path / "repository")
    with pytest.raises(ModelError, match=r"has no model_index.json; it has toon.safetensors. Download one"):
        find_model("someone/toon")
    assert server.downloaded() == set()


def test_a_repository_of_pickles_says_so(serve, eps_folder, tmp_path):
    repository = copy(eps_folder, tmp_path / "repository")
    (repository / UNET).rename(repository / UNET.replace(".safetensors", ".bin"))
    server = serve(someone__old=repository)
    with pytest.raises(
        ModelError, match=r"someone/old lacks unet/.*it has pickles \(unet/diffusion_pytorch_model.bin\)"
    ):
        find_model("someone/old")
    assert server.downloaded() == {"model_index.json"}


def test_a_misspelt_name_is_known_after_one_question(serve):
    server = serve()
    with pytest.raises(
        hub.MissingError, match=r"'someone/modle' lacks model_index.json.*has no such model for you"
    ):
        find_model("someone/modle")
    assert len(server.asked) == 1


def test_half_a_model_in_the_cache_is_completed_at_its_own_revision(serve, eps_folder):
    server = serve(someone__model=eps_folder)
    snapshot = put_into_cache(server.cache, "someone/model", eps_folder)
    (snapshot / VAE).unlink()
    assert find_model("someone/model").to_fetch.keys() == {VAE}
    load_pipeline("someone/model")
    assert server.downloaded() == {VAE}
    assert all(f"/resolve/{REVISION}/" in request for request in server.asked if "/resolve/" in request)


def test_a_hub_that_does_not_answer_is_asked_once(online, silence, monkeypatch):
    cache = online(silence)
    monkeypatch.setattr(hub, "SECONDS", 0.5)
    began = time.monotonic()
    for _ in range(3):
        assert fingerprint("someone/model") == "out of reach"
        with pytest.raises(hub.MissingError) as caught:
            find_model("someone/model")
        with pytest.raises(
            hub.MissingError, match=r"'google/bert' lacks .*did not answer \(no answer within 0.5 s\)"
        ):
            Bert("google/bert")
    assert time.monotonic() - began < 2
    message = str(caught.value)
    assert re.search(
        r"lacks model_index.json, unet/config.json.*text_encoder/model.safetensors; looked for in", message
    )
    assert str(cache / "models--someone--model") in message
    assert f"the hub {silence} did not answer (no answer within 0.5 s)" in message
    assert "--model FOLDER" in message
    assert "--model menagerie" in message


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9", "http://no-such-host.invalid"], ids=["refused", "no name"]
)
def test_an_unreachable_hub_is_a_matter_of_seconds(online, address):
    online(address)
    began = time.monotonic()
    with pytest.raises(hub.MissingError, match=f"the hub {address} did not answer"):
        find_model("someone/model")
    assert time.monotonic() - began < 8


def test_a_page_in_place_of_a_hub_is_no_answer(online):
    """As a hotel's or a company's network sends it, whatever was asked."""

    class Login(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>Welcome to our hotel</title>")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Login) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        online(address)
        with pytest.raises(hub.MissingError, match=f"the hub {address} did not answer"):
            find_model("someone/model")
        server.shutdown()


def test_local_files_only_asks_nobody(serve):
    server = serve()
    with pytest.raises(hub.MissingError, match="nowhere else: --local_files_only"):
        find_model("someone/model", local_files_only=True)
    with pytest.raises(hub.MissingError, match="nowhere else: --local_files_only"):
        Bert("someone/bert", local_files_only=True)
    assert not server.asked


def test_the_command_says_what_is_missing_within_seconds(silence, tmp_path):
    """The whole command, in its own process, without a network: the numbers first, then what is missing."""
    environment = os.environ | {
        "HF_ENDPOINT": silence,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
    }
    command = [
        sys.executable,
        "-X",
        "importtime",
        "run_sjc.py",
        "--prompt",
        "a cat",
        "--model",
        "sd15",
        "--debias",
        "--dry_run",
    ]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert time.monotonic() - began < 30  # 10 on a machine that does nothing else
    assert done.returncode == 2
    assert "guidance = 100.0" in done.stdout
    assert f"weights of {SD15}: missing" in done.stdout
    assert re.search(
        r"language model: missing: .*'google-bert/bert-base-uncased' lacks config.json", done.stdout
    )
    assert hub.download_command(SD15, STABLE_DIFFUSION.patterns) in done.stdout
    assert "did not answer (no answer within 4 s)" in done.stderr
    assert not re.search(r"\| +(diffusers|transformers)$", done.stderr, re.MULTILINE), (
        "nothing heavy to say no"
    )


def test_a_dead_name_is_used_from_the_cache_and_else_replaced(online, eps_folder):
    cache = online("http://127.0.0.1:9")
    name = "runwayml/stable-diffusion-v1-5"
    assert choose_model(name, "cpu").location == SD15
    snapshot = put_into_cache(cache, name, eps_folder)
    choice = choose_model(name, "cpu")
    assert (choice.location, choice.name) == (name, name)
    assert "whole in the local cache" in choice.why
    assert fingerprint(name) == REVISION
    (snapshot / UNET).unlink()
    assert choose_model(name, "cpu").location == SD15


def test_deepfloyd_is_fetched_and_known_by_its_name(serve, tmp_path):
    write_if(tmp_path / "repository")
    (tmp_path / "repository" / "text_encoder" / "pytorch_model.bin").write_bytes(bytes(9))
    server = serve(DeepFloyd__IF_I_M=tmp_path / "repository")
    server_name = "DeepFloyd/IF_I_M"
    found = find_model(server_name)
    assert [*found.to_fetch] == [TEXT, UNET], "what is needed first comes first"
    assert (found.place / "tokenizer/tokenizer.json").exists()
    assert choose_model(server_name, "cpu").profile.guidance == 21
    assert not any("pytorch_model" in file for file in server.downloaded())


def test_deepfloyd_under_another_name_is_known_at_the_second_try(serve, tmp_path):
    """Its guidance and bounds are chosen before the hub is asked."""
    write_if(tmp_path / "repository")
    serve(someone__if=tmp_path / "repository")
    assert choose_model("someone/if", "cpu").profile.guidance == 100
    with pytest.raises(ModelError, match="Run the command again|run the command again"):
        find_model("someone/if")
    assert choose_model("someone/if", "cpu").profile.guidance == 21
    assert find_model("someone/if").to_fetch


def test_a_gated_model_says_how_its_licence_is_accepted(serve, tmp_path):
    write_if(tmp_path / "repository")
    name = "DeepFloyd/IF-I-XL-v1.0"
    serve((name,), **{name.replace("/", "__"): tmp_path / "repository"})
    terms = "non-commercial research.*accept the licence on https://huggingface.co/DeepFloyd.*`hf auth login`"
    with pytest.raises(MissingError, match=f"model_index.json.*{terms}"):
        find_model(name)
    with pytest.raises(MissingError, match=f"{terms}.*hf download {name} --include"):
        find_model(name, local_files_only=True)


def test_the_download_command_takes_what_is_needed_and_no_more():
    taken = {f for f in SD15_FILES if any(fnmatch(f, pattern) for pattern in STABLE_DIFFUSION.patterns)}
    assert taken >= {*small_files(SD15_FILES, STABLE_DIFFUSION), *weights(SD15_FILES, STABLE_DIFFUSION)}
    surplus = taken - {*small_files(SD15_FILES, STABLE_DIFFUSION), *weights(SD15_FILES, STABLE_DIFFUSION)}
    assert surplus == {"feature_extractor/preprocessor_config.json", "safety_checker/config.json"}  # a few kB
    assert set(weights(SD15_FILES, STABLE_DIFFUSION)) == {UNET, VAE, TEXT}
    bert = {f for f in BERT_FILES if any(fnmatch(f, pattern) for pattern in BERT_PATTERNS)}
    assert bert == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
        "coreml/fill-mask/float32_model.mlpackage/Manifest.json",
    }


def test_the_download_command_works(serve, eps_folder, tmp_path):
    """By the command line that the library installs."""
    server = serve(someone__model=everything(eps_folder, tmp_path / "repository"))
    environment = os.environ | {
        "HF_ENDPOINT": server.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
    }
    shown = hub.download_command("someone/model", STABLE_DIFFUSION.patterns)
    command = f"{Path(sys.executable).parent / 'hf'} {shown.removeprefix('hf ')}"
    subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=True)
    snapshot = tmp_path / "hf" / "hub" / "models--someone--model" / "snapshots" / REVISION
    there = set(hub.files_in(snapshot))
    assert {*small_files(there, STABLE_DIFFUSION), *weights(there, STABLE_DIFFUSION)} <= there
    assert not {f for f in there if f.endswith((".bin", ".ckpt")) or "fp16" in f or "non_ema" in f}
    shutil.rmtree(tmp_path / "repository")
    code = (
        "import sys; from tests.small_models import load_pipeline;"
        "load_pipeline('someone/model', local_files_only=True); print('loaded')"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "loaded"


def test_sizes_are_written_for_people():
    assert [hub.megabytes(n) for n in (12, 4_300, 492_265_168, 3_438_167_536)] == [
        "12 bytes",
        "4.3 kB",
        "492 MB",
        "3.4 GB",
    ]

"""Model files as people have them, small: single files in the original layout, a cache, a hub, damages."""

from __future__ import annotations

import json
import re
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import torch
from safetensors.torch import load_file, save_file

from tests.small_models import write_pipeline

REVISION = "0123456789abcdef0123456789abcdef01234567"
UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def original_unet_name(name: str, layers: int) -> str:
    """Return the name that a tensor of diffusers' U-Net has in an original checkpoint."""
    stem, _, leaf = name.rpartition(".")
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{leaf}"
    found = re.match(
        r"(down|mid|up)_block(?:s\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name
    )
    side, block, kind, i, rest = found.groups()
    block, i = int(block or 0), int(i)
    if kind == "resnets":
        old = next(old for old in _RESNET if rest.startswith(old))
        rest = rest.replace(old, _RESNET[old])
    if side == "mid":
        return f"middle_block.{2 * i if kind == 'resnets' else 1}.{rest}"
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.{rest.replace('conv', 'op')}"
        return f"input_blocks.{1 + block * (layers + 1) + i}.{0 if kind == 'resnets' else 1}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{block * (layers + 1) + layers}.UP.{rest}"
    return f"output_blocks.{block * (layers + 1) + i}.{0 if kind == 'resnets' else 1}.{rest}"


def original_unet(tensors: dict, layers: int) -> dict:
    """Return a U-Net's tensors as an original checkpoint has them."""
    renamed = {original_unet_name(k, layers): v for k, v in tensors.items()}
    out = {}
    for name, tensor in renamed.items():
        block = name.split(".UP.")[0]  # an upsampler comes behind the attention, where the block has one
        place = 2 if any(n.startswith(f"{block}.1.") for n in renamed) else 1
        out["model.diffusion_model." + name.replace(".UP.", f".{place}.")] = tensor
    return out


def original_vae(tensors: dict, blocks: int) -> dict:
    """Return an autoencoder's tensors as an original checkpoint has them."""
    out = {}
    for name, tensor in tensors.items():
        as_convolution = ".attentions." in name and tensor.ndim == 2
        old = tensor[:, :, None, None] if as_convolution else tensor
        out[f"first_stage_model.{original_vae_name(name, blocks)}"] = old.contiguous()
    return out


def original_vae_name(name: str, blocks: int) -> str:
    """Return the name that a tensor of diffusers' autoencoder has in an original checkpoint."""

    def up(found: re.Match) -> str:
        return f"up.{blocks - 1 - int(found[1])}." + (f"block.{found[3]}" if found[3] else "upsample")

    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)", up, name)
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    for new, old in _ATTENTION.items():
        name = name.replace(f"mid_block.attentions.0.{new}.", f"mid.attn_1.{old}.")
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def original_text(tensors: dict, sd2: bool) -> dict:
    """Return a text encoder's tensors as an original checkpoint has them: CLIP's or OpenCLIP's names."""
    tensors = {k.removeprefix("text_model."): v for k, v in tensors.items()}
    if not sd2:
        return {f"cond_stage_model.transformer.text_model.{k}": v for k, v in tensors.items()}
    out = {
        "positional_embedding": tensors["embeddings.position_embedding.weight"],
        "token_embedding.weight": tensors["embeddings.token_embedding.weight"],
        "ln_final.weight": tensors["final_layer_norm.weight"],
        "ln_final.bias": tensors["final_layer_norm.bias"],
    }
    for name, tensor in tensors.items():
        found = re.match(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", name)
        if not found:
            continue
        layer, part, leaf = found.groups()
        block = f"transformer.resblocks.{layer}."
        if part == "self_attn.q_proj":
            joined = [tensors[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
            out[f"{block}attn.in_proj_{leaf}"] = torch.cat(joined)
        elif part in _OPEN_CLIP:
            out[f"{block}{_OPEN_CLIP[part]}.{leaf}"] = tensor
    return {f"cond_stage_model.model.{k}": v for k, v in out.items()}


def original(folder: Path, sd2: bool = False) -> dict:
    """Return a small pipeline's tensors as a single-file checkpoint has them."""
    return {
        **original_unet(load_file(folder / UNET), layers=1),
        **original_vae(load_file(folder / VAE), blocks=4),
        **original_text(load_file(folder / TEXT), sd2),
    }


def copy(source: Path, target: Path, **changes) -> Path:
    """Copy a folder; each change is a part's configuration by its name, updated with these fields."""
    shutil.copytree(source, target)
    for part, fields in changes.items():
        path = target / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return target


def rename_weights(folder: Path, ending: str, dtype=torch.float16) -> Path:
    """Turn the weights of a folder into a variant: model.safetensors -> model{ending}."""
    for file in (UNET, VAE, TEXT):
        path = folder / file
        tensors = {k: v.to(dtype) for k, v in load_file(path).items()}
        save_file(tensors, path.with_name(path.name.replace(".safetensors", ending)), {"format": "pt"})
        path.unlink()
    return folder


def put_into_cache(cache: Path, name: str, folder: Path) -> Path:
    """Copy a folder into a hub cache, as the main branch of a repository; return the snapshot."""
    repository = cache / ("models--" + name.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    return Path(shutil.copytree(folder, repository / "snapshots" / REVISION))


def header_only(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """Write a safetensors file of these shapes whose tensors are a hole: whole, and no data on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(torch.tensor(shape).prod())
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def write_index(folder: Path, class_name: str) -> Path:
    """Write a folder that holds no more than the index of a pipeline of this class."""
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name}))
    return folder


def write_folder(folder: Path, sd2: bool = False, prediction_type: str = "epsilon") -> Path:
    """Write a small pipeline with CLIP's own tokenizer, whose tensors fit a single file."""
    from sjc_debiased.models.single_file import clip_tokenizer
    from sjc_debiased.models.tensor_files import SD1, SD2

    write_pipeline(folder, prediction_type, clip_tokenizer(SD2 if sd2 else SD1))
    return folder


class Hub:
    """Serve repositories on this machine as the hub does, and remember what was asked for.

    Of the gated ones it says what they hold, and gives no file.
    """

    def __init__(self, repositories: dict[str, Path], gated: tuple[str, ...] = ()):
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):  # noqa: N802
                self.do_GET()

            def do_GET(self):  # noqa: N802
                hub.asked.append(f"{self.command} {self.path}")
                path = self.path.split("?")[0].strip("/").split("/")
                api = path[:2] == ["api", "models"]
                name = "/".join(path[2:4] if api else path[:2])
                folder = repositories.get(name)
                if folder is None:
                    self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                elif "tree" in path:
                    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
                    entries = [
                        {"type": "file", "path": p.relative_to(folder).as_posix(), "size": 1, "oid": "0"}
                        for p in files
                    ]
                    self.answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
                elif api:
                    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
                    siblings = [
                        {"rfilename": p.relative_to(folder).as_posix(), "size": p.stat().st_size}
                        for p in files
                    ]
                    info = {"id": name, "sha": REVISION, "siblings": siblings}
                    self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
                elif name in gated:
                    self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
                else:
                    file = folder / "/".join(path[4:])
                    if file.is_file():
                        etag = f'"{abs(hash(file.read_bytes())):x}"'
                        self.answer(200, file.read_bytes(), {"ETag": etag, "X-Repo-Commit": REVISION})
                    else:
                        self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

            def answer(self, status, body, headers):
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def downloaded(self) -> set[str]:
        """Return the files that were downloaded."""
        return {
            a.split("/resolve/")[1].split("/", 1)[1]
            for a in self.asked
            if a.startswith("GET") and "/resolve/" in a
        }

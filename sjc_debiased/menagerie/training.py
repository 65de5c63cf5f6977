"""The one training loop of the menagerie: AdamW, warm-up and linear decay, EMA, resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from tqdm import trange

from sjc_debiased.models.machine import has_bfloat16_units

SEED = 2303
_SAVE_EVERY = 250


def device() -> torch.device:
    """Return CUDA where there is one, else the CPU: every stage trains on either unchanged."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> torch.autocast:
    """Return a context in which networks compute in bfloat16, but on a CPU that has no units for it."""
    fast = where.type != "cpu" or has_bfloat16_units()
    return torch.autocast(where.type, torch.bfloat16, enabled=fast)


def step_generator(step: int, stage: int) -> torch.Generator:
    """Return a CPU generator that depends on the step and the stage alone, so resuming is exact."""
    return torch.Generator().manual_seed(SEED + 1_000_003 * stage + step)


def save(state: object, path: Path) -> None:
    """Write tensors so that the file is whole or not there."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def write_pipeline(pipeline: DiffusionPipeline, out: Path) -> None:
    """Write a pipeline's folder: float16 safetensors, and no word of where its parts came from."""
    pipeline.to("cpu", torch.float16).save_pretrained(out, safe_serialization=True)
    for config in out.glob("*/config.json"):
        fields = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
        config.write_text(json.dumps(fields, indent=2) + "\n")


def fit(
    name: str,
    folder: Path,
    module: nn.Module,
    loss_at: Callable[[int], Tensor],
    n_steps: int,
    lr: float,
    ema_decay: float = 0.999,
    weight_decay: float = 0.01,
) -> float:
    """Minimise `loss_at(step)` over the parameters of `module`, which ends with their EMA.

    Checkpoints go to `folder/name.pt` every 250 steps and a stopped training goes on from there;
    losses go to `folder/name.jsonl`. `autocast` is the caller's, inside `loss_at`.

    Returns:
        The mean loss of the last 200 steps that ran.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, params = folder / f"{name}.pt", list(module.parameters())
    optimizer = torch.optim.AdamW(params, lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 200, 1.0) * max(1 - s / n_steps, 0.0)
    )
    ema, start = [p.detach().clone() for p in params], 0
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=params[0].device)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        ema, start = [mean.detach() for mean in state["ema"]], state["step"]
    recent: list[float] = []
    began = time.monotonic()
    module.train()
    with (folder / f"{name}.jsonl").open("a") as log:
        for step in (bar := trange(start, n_steps, initial=start, total=n_steps, desc=name)):
            loss = loss_at(step)
            loss.backward()
            nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            with torch.no_grad():
                torch._foreach_lerp_(ema, params, 1 - min(ema_decay, (step + 1) / (step + 10)))
            recent = [*recent[-199:], loss.item()]
            if (step + 1) % 50 == 0:
                mean = sum(recent) / len(recent)
                bar.set_postfix(loss=f"{mean:.4f}")
                elapsed = round(time.monotonic() - began, 1)
                log.write(json.dumps({"step": step + 1, "loss": mean, "elapsed_s": elapsed}) + "\n")
                log.flush()
            if (step + 1) % _SAVE_EVERY == 0 or step + 1 == n_steps:
                state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {"schedule": schedule.state_dict(), "ema": ema, "step": step + 1}
                save(state, path)
    with torch.no_grad():
        for param, mean in zip(params, ema):
            param.copy_(mean)
    module.eval()
    return sum(recent) / max(len(recent), 1)

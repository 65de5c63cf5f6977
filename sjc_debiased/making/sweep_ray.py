"""The sweep on Ray: workers on this machine or on a cluster, each with the model loaded once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from sjc_debiased.making.work import Work, carry_out, load, name_of, told
from sjc_debiased.options.command import OptionError

_RETRIES = 3


def carry_out_on_ray(work: Work, n_workers: int) -> Iterator[tuple[str, str | None]]:
    """Do the runs of a sweep on `n_workers` Ray actors; yield (name, error or None) as each ends.

    A worker that dies is replaced, and its pack goes on from its checkpoints, three times at most. On a CUDA
    device each worker gets one GPU. All workers must see the same run root.

    Raises:
        OptionError: Ray is not installed, out of reach, or has too little for so many workers.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]  # optional
    except ImportError as error:
        raise OptionError(
            "--engine ray needs the package ray. It is not installed. Run `pip install ray`, or use the "
            "serial engine."
        ) from error
    from tqdm import tqdm

    if not work.todo:
        return
    try:
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError) as error:
        raise OptionError(
            f"--engine ray must reach Ray. It did not ({error}). Start a cluster, or unset RAY_ADDRESS."
        ) from error
    n = work.options.machine.at_a_time
    packs = deque((work.todo[i : i + n], 1) for i in range(0, len(work.todo), n))
    running: dict = {}
    try:
        remote = ray.remote(**_share(ray, work, n_workers))(_Worker)
        idle = [remote.remote(work) for _ in range(n_workers)]
        with tqdm(total=len(work.todo), unit="run") as bar:
            while packs or running:
                while packs and idle:
                    pack, attempt = packs.popleft()
                    actor = idle.pop()
                    running[actor.run.remote(pack)] = actor, pack, attempt
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
                actor, pack, attempt = running.pop(ready)
                try:
                    ends = ray.get(ready)
                    idle.append(actor)
                except ray.exceptions.RayTaskError as error:
                    ends = [(name_of(run), str(error.cause)) for run in pack]
                    idle.append(actor)
                except ray.exceptions.RayError as error:
                    idle.append(remote.remote(work))
                    if attempt <= _RETRIES:
                        packs.append((pack, attempt + 1))
                        continue
                    ends = [(name_of(run), f"its worker died {attempt} times: {error}") for run in pack]
                for end in ends:
                    bar.update()
                    yield end
    finally:
        ray.shutdown()


def _share(ray, work: Work, n_workers: int) -> dict[str, int]:
    """Return what one worker asks of Ray: its share of the processors, and a GPU where runs are on one."""
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    device = work.machine.device
    needs_gpu = device.startswith("cuda")
    if needs_gpu and device not in ("cuda", "cuda:0"):
        raise OptionError(
            f"each of Ray's workers has a GPU of its own, and calls it cuda. --device is {device}. Write "
            "--device cuda, and choose GPUs by CUDA_VISIBLE_DEVICES."
        )
    if not 1 <= n_workers <= (min(cpus, gpus) if needs_gpu else cpus):
        raise OptionError(
            f"--workers must be at least 1, with a processor{' and a GPU' if needs_gpu else ''} each. It is "
            f"{n_workers}; Ray has {cpus} processors and {gpus} GPUs. Choose fewer workers."
        )
    return {"num_cpus": cpus // n_workers, "num_gpus": int(needs_gpu)}


class _Worker:
    """Hold the model between the packs that one worker is given."""

    def __init__(self, work: Work):
        self._work, self._denoiser = work, None

    def run(self, pack: tuple) -> list[tuple[str, str | None]]:
        """Do one pack, and return how each of its runs ended."""
        work = replace(self._work, todo=self._missing(pack), quiet=True)
        ended = [(name_of(run), None) for run in pack if run not in work.todo]
        if work.todo and self._denoiser is None:
            self._denoiser = load(work)
        return [*ended, *map(told, carry_out(work, self._denoiser))]

    def _missing(self, pack: tuple) -> tuple:
        """Return the runs of a pack that are not finished: a retried pack may have finished some."""
        from sjc_debiased.folder.identity import find_run, is_finished

        root, precision = self._work.options.basic.run_root, self._work.machine.wanted_precision
        folders = [(run, find_run(root, run, precision)) for run in pack]
        return tuple(run for run, folder in folders if not (folder and is_finished(folder, run)))

"""The sweep on Ray: workers on this machine or on a cluster, each with the model loaded once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from sjc_debiased.config import OptionError
from sjc_debiased.sweep import Work, do, name_of

_RETRIES = 3


def do_on_ray(work: Work, n_workers: int) -> Iterator[tuple[str, str | None]]:
    """Do the runs of a sweep on `n_workers` Ray actors; yield (name, error or None) as each ends.

    A worker that dies is started again, and its runs go on from their checkpoints, three times at most. On a
    CUDA device each worker gets one GPU. All workers must see the same run root.

    Raises:
        OptionError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise OptionError(
            "--engine ray needs the package ray. It is not installed. Run `pip install ray`, or use the "
            "serial engine."
        ) from error
    from tqdm import tqdm

    if not work.todo:
        return
    gpus = int(work.todo[0].device.startswith("cuda"))
    ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
    worker = ray.remote(num_gpus=gpus, num_cpus=1, max_restarts=_RETRIES, max_task_retries=_RETRIES)(_Worker)
    try:
        actors = ray.util.ActorPool([worker.remote(work) for _ in range(n_workers)])
        packs = [work.todo[i : i + work.pack] for i in range(0, len(work.todo), work.pack)]
        for pack in packs:
            actors.submit(lambda actor, pack: actor.run.remote(pack), pack)
        with tqdm(total=len(work.todo), unit="run") as bar:
            while actors.has_next():
                try:
                    ends = actors.get_next_unordered()
                except ray.exceptions.RayError as error:  # of one pack; which one, Ray does not say
                    ends = [("a pack of runs", f"its worker died {_RETRIES} times: {error}")]
                for end in ends:
                    bar.update()
                    yield end
    finally:
        ray.shutdown()


class _Worker:
    """Hold the model between the packs that one worker is given."""

    def __init__(self, work: Work):
        self._work, self._denoiser = work, None

    def run(self, pack: tuple) -> list[tuple[str, str | None]]:
        """Do one pack, and return how each of its runs ended."""
        from sjc_debiased.prepare import load_denoiser

        work = replace(self._work, todo=self._missing(pack), quiet=True)
        ended = [(name_of(run), None) for run in pack if run not in work.todo]
        if work.todo and self._denoiser is None:
            self._denoiser = load_denoiser(work.todo[0], work.choice, work.local_files_only)
        return [*ended, *do(work, self._denoiser)]

    def _missing(self, pack: tuple) -> tuple:
        """Return the runs of a pack that are not finished: a retried pack may have finished some."""
        from sjc_debiased.runs import FINISHED, find_run

        folders = [(run, find_run(self._work.run_root, run)) for run in pack]
        return tuple(run for run, folder in folders if not (folder and (folder / FINISHED).exists()))

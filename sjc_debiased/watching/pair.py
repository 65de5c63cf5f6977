"""Two objects of one prompt side by side, by SJC and by D-SDS, for whoever watches them grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.folder.identity import find_run
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import FinishedError, check_run_root
from sjc_debiased.making.pack import Ended, run_packed
from sjc_debiased.making.prepare import load_denoiser, open_session, plan_prompts, try_kernel
from sjc_debiased.making.session import Session
from sjc_debiased.making.watch import Wish
from sjc_debiased.making.work import Work
from sjc_debiased.models.choose import Choice, check_words, choose_model, identify
from sjc_debiased.models.machine import Machine, choose_machine
from sjc_debiased.optimize import Step
from sjc_debiased.options.command import Basic, MethodOptions, OptionError, Options
from sjc_debiased.options.config import Resolved, resolve
from sjc_debiased.options.mesh_settings import DEFAULT_MESH
from sjc_debiased.options.presets import PresetName
from sjc_debiased.watching.viewer_pictures import picture
from voxnerf.cameras import orbit
from voxnerf.snapshot import TURN_ELEVATION_DEG

PAIR: tuple[PresetName, ...] = ("sjc", "dsds")
MOST_CHARACTERS = 300
_REST = 3.0  # what a picture takes, times this, goes to the steps before the next one
_LEAST_S = 1.0


@dataclass(frozen=True)
class Growing:
    """Show one of the two at a step: from the front and from the back, uint8 [h, 2 h, 3]."""

    preset: str
    done: int
    n_steps: int
    image_u8: np.ndarray


@dataclass(frozen=True)
class Made:
    """Say how one of the two ended.

    Attributes:
        folder: its run folder; None where it has none.
        problem: what went wrong; empty where its results are written.
    """

    preset: str
    folder: Path | None
    problem: str


@dataclass
class PairMaker:
    """Make pairs of runs in a run root, one pair at a time, with one model that is loaded once.

    Attributes:
        most_steps: no pair gets more.
    """

    machine: Machine
    choice: Choice
    denoiser: Denoiser
    run_root: Path
    most_steps: int
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, prompt: str, seed: int, n_steps: int) -> Work:
        """Return the two runs that a person asks for, and how they are made.

        Raises:
            OptionError: a word is unknown, the prompt too long, or a number out of range.
            RunError: the run root has no room.
        """
        if len(prompt) > MOST_CHARACTERS:
            raise OptionError(
                f"a prompt must have at most {MOST_CHARACTERS} characters. This one has {len(prompt)}. "
                "Shorten it."
            )
        if not 1 <= n_steps <= self.most_steps:
            raise OptionError(f"steps must be between 1 and {self.most_steps}. Received {n_steps}.")
        basic = Basic((prompt,), model=self.choice.name, seed=seed, n_steps=n_steps, run_root=self.run_root)
        identity = identify(self.choice, local_files_only=True)
        runs: list[Resolved] = []
        for preset in PAIR:
            options = Options(basic, MethodOptions(preset))
            runs += resolve(options, self.choice.profile, self.choice.name, identity)
        check_words(prompt, self.choice)
        prompts = {run: plan_prompts(run, self.choice, local_files_only=True) for run in runs}
        check_run_root(self.run_root, runs)
        machine, choice = self.machine, self.choice
        return Work(tuple(runs), machine, choice, Options(basic), DEFAULT_MESH, ("app.py",), prompts)

    def make(self, work: Work, stop: threading.Event) -> Iterator[Growing | Made]:
        """Make the runs of `plan`, and yield what they look like, and how each ends.

        A caller that leaves early, or sets `stop`, stops them; they are saved, and go on when asked again.
        """
        news: SimpleQueue[Growing | Made | None] = SimpleQueue()
        loop = threading.Thread(target=self._loop, args=(work, _Easel(self.denoiser, news, stop)))
        loop.start()
        try:
            while (new := news.get()) is not None:
                yield new
        finally:
            stop.set()
            loop.join()

    def _loop(self, work: Work, easel: _Easel) -> None:
        try:
            with self._busy:
                jobs = [(run, open_session(run, work, self.denoiser)) for run in work.todo]
                for ended in run_packed(jobs, self.denoiser, len(PAIR), quiet=True, watchers=[easel]):
                    easel.news.put(self._made(ended))
        finally:
            easel.news.put(None)

    def _made(self, ended: Ended) -> Made:
        preset, error = ended.run.preset, ended.error
        if ended.stopped and ended.session:
            done = ended.session.scene.done
            return Made(preset, None, f"stopped after step {done}, saved; the same prompt goes on from there")
        if isinstance(error, FinishedError):
            return Made(preset, find_run(self.run_root, ended.run, self.machine.wanted_precision), "")
        if error or ended.session is None:
            return Made(preset, None, f"failed: {error}")
        return Made(preset, ended.session.folder, "")


def pair_maker(model: str, device: str, run_root: Path, most_steps: int | None) -> PairMaker:
    """Load a model and return what makes pairs with it.

    Args:
        model, device: as `--model` and `--device` have them.
        most_steps: None for the model's own number.

    Raises:
        OptionError: one is none, or the model is out of reach.
    """
    machine = choose_machine(device)
    choice = choose_model(model, machine.device)
    most = choice.profile.n_steps if most_steps is None else most_steps
    basic = Basic(("a cat",), model=choice.name, n_steps=most)
    (run,) = resolve(Options(basic), choice.profile, choice.name, identify(choice))  # refuses most_steps < 1
    denoiser = load_denoiser(machine, choice, local_files_only=False)
    machine = try_kernel(machine, "auto", run, denoiser)
    return PairMaker(machine, choice, denoiser, run_root, most)


def _preset(session: Session) -> str:
    return RunReader(session.folder).options["preset"]


class _Easel:
    """Put pictures of growing objects into a queue, at most every second; a `Watcher`."""

    def __init__(self, denoiser: Denoiser, news: SimpleQueue, stop: threading.Event):
        self.denoiser, self.news, self._stop = denoiser, news, stop
        self._next_at: dict[Path, float] = {}
        self._eyes = orbit(2, denoiser.size, TURN_ELEVATION_DEG)

    def between_steps(self, session: Session, step: Step) -> Wish:
        """Show a scene if it is time, and stop when a person wishes it."""
        scene, began = session.scene, time.monotonic()
        if began >= self._next_at.get(session.folder, 0.0):
            sides = [picture(scene.field, self.denoiser, eye, "image") for eye in self._eyes]
            self.news.put(
                Growing(_preset(session), scene.done, scene.settings.n_steps, np.concatenate(sides, axis=1))
            )
            now = time.monotonic()
            self._next_at[session.folder] = now + max(_LEAST_S, _REST * (now - began))
        return "stop" if self._stop.is_set() else "go on"

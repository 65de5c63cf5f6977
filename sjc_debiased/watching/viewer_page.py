"""The viewer's page in the browser: what it shows, and what a person wishes there.

viser serves it from threads of its own. They set plain values; everything here is called from the loop's
thread, which reads them, renders, and hands pictures over. A text of a person's is shown in a field for text
alone, never as Markdown or HTML.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import viser  # pyright: ignore[reportMissingImports]  # optional
import viser.transforms  # pyright: ignore[reportMissingImports]  # optional

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.optimize import Step
from sjc_debiased.seeing import decoder_of
from sjc_debiased.watching.viewer_pictures import (
    KINDS,
    HasDensity,
    Kind,
    camera_of,
    opencv_pose,
    picture,
    surface_at,
)
from voxnerf.cameras import Camera, orbit_camera
from voxnerf.field import Field
from voxnerf.snapshot import TURN_ELEVATION_DEG, to_u8

_REST = 3.0  # what pictures take, times this, goes to the run before the next ones
_NOTE = "A run that is changed here is written down as such, and counts in no table."
_LEVEL = 5.0  # where the slider of the surface's level begins; objects are at about 1 to 20


@dataclass(frozen=True)
class Looked:
    """Say for which picture a client was served last: nothing is rendered twice."""

    camera: tuple[float, ...]
    kind: Kind
    level: float
    version: int


class Page:
    """One page for all who look; `begin` fills it for a run.

    Attributes:
        address: where the browser finds it.
        stop: set once a person wished to stop the run.
    """

    def __init__(self, host: str):
        before = {*threading.enumerate()}
        self._server = viser.ViserServer(host=host, verbose=False)
        self._threads = {*threading.enumerate()} - before
        self.address = f"http://{host}:{self._server.get_port()}"
        self.stop = threading.Event()
        front = orbit_camera(0.0, TURN_ELEVATION_DEG, 1, 1)
        self._server.scene.set_up_direction("+y")
        self._server.initial_camera.position = tuple(front.c2w[:3, 3])
        self._server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self._server.gui.configure_theme(
            control_layout="collapsible", show_logo=False, show_share_button=False
        )
        self._served: dict[int, Looked] = {}
        self._next_at, self._step_shown = 0.0, -1

    @property
    def alive(self) -> bool:
        """Return whether the server's thread still is."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def watched(self) -> bool:
        """Return whether somebody looks."""
        return bool(self._server.get_clients())

    def begin(
        self,
        prompt: str,
        has_surface: bool,
        clip: tuple[float, float] | None = None,
        guidance: float | None = None,
        live: bool = False,
    ) -> None:
        """Fill the page for a run.

        Args:
            has_surface: the field is a `HasDensity`.
            clip, guidance: as the run has them; None where they cannot be changed.
            live: with buttons to pause and to stop.
        """
        gui = self._server.gui
        gui.reset()
        self._server.scene.reset()
        self._server.scene.set_up_direction("+y")
        self._served.clear()
        gui.add_text("prompt", prompt, disabled=True)
        self._step = gui.add_text("step", "", disabled=True)
        self._view = gui.add_text("sent for this view", "", disabled=True, multiline=True)
        kinds = [kind for kind in KINDS if has_surface or kind != "surface"]
        self._kind = gui.add_dropdown("show", kinds, initial_value=kinds[0])
        self._level: Any = None
        if has_surface:
            hint = "Density per scene unit at which the surface is taken: the raw level set."
            self._level = gui.add_slider("surface level", 0.1, 40.0, 0.1, _LEVEL, hint=hint)
        self._clip: Any = None
        self._guidance: Any = None
        if clip is not None:
            most = 2 * clip[1]
            self._clip = gui.add_multi_slider("clip", most / 400, most, most / 400, clip, hint=_NOTE)
        elif live:
            gui.add_text("clip", "this run does not clip: there is no bound to change", disabled=True)
        if guidance is not None:
            most = 2 * max(guidance, 1.0)
            self._guidance = gui.add_slider("guidance", 0.0, most, most / 200, guidance, hint=_NOTE)
        self._pause: Any = None
        if live:
            self._pause = gui.add_checkbox("pause", initial_value=False)
            gui.add_button("stop and save").on_click(lambda _: self.stop.set())

    @property
    def paused(self) -> bool:
        """Return whether a person wishes the run to wait."""
        return self._pause is not None and self._pause.value

    @property
    def clip(self) -> tuple[float, float] | None:
        """Return the bounds of clipping that a person wishes, or None where they cannot be changed."""
        return None if self._clip is None else self._clip.value

    @clip.setter
    def clip(self, value: tuple[float, float]) -> None:
        self._clip.value = value

    @property
    def guidance(self) -> float | None:
        """Return the scale of guidance that a person wishes, or None where it cannot be changed."""
        return None if self._guidance is None else self._guidance.value

    @guidance.setter
    def guidance(self, value: float) -> None:
        self._guidance.value = value

    def tell(self, step: str, view: str) -> None:
        """Say at which step the run is, and what is sent for its view."""
        if self._step.value != step:
            self._step.value = step
            self._view.value = view

    def due(self) -> bool:
        """Return whether those who look may have pictures again without holding the run up."""
        return self.watched and time.monotonic() >= self._next_at

    def look(self, field: Field, denoiser: Denoiser, version: int, step: Step | None = None) -> None:
        """Hand everybody the picture that they wish; rest for a while after.

        Args:
            version: another one where the field is another.
            step: whose camera is shown, with its picture.
        """
        began = time.monotonic()
        clients = self._server.get_clients()
        for gone in self._served.keys() - clients.keys():
            del self._served[gone]
        for number, client in clients.items():
            eye = client.camera
            seen = tuple(float(x) for x in (*eye.wxyz, *eye.position, eye.fov, eye.aspect))
            level = 0.0 if self._level is None else self._level.value
            kind = KINDS[KINDS.index(self._kind.value) if self._kind.value in KINDS else 0]
            wished = Looked(seen, kind, level, version)
            if self._served.get(number) == wished:
                continue
            self._serve(client, field, denoiser, wished)
            self._served[number] = wished
        if step is not None and step.step != self._step_shown:
            self._show_camera(step.camera, to_u8(decoder_of(field, denoiser)(step.rendering.latent))[0])
            self._step_shown = step.step
        self._next_at = time.monotonic() + _REST * (time.monotonic() - began)

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def _show_camera(self, camera: Camera, image_u8: np.ndarray) -> None:
        """Show the camera of a step, with its picture."""
        rotation, position, fov = opencv_pose(camera)
        wxyz = viser.transforms.SO3.from_matrix(rotation).wxyz
        self._server.scene.add_camera_frustum(
            "/camera of the step",
            fov,
            camera.width / camera.height,
            scale=0.2,
            thickness=0.005,
            image=image_u8,
            wxyz=wxyz,
            position=position,
        )

    def _serve(self, client: Any, field: Field, denoiser: Denoiser, wished: Looked) -> None:
        """Hand one client its picture, or its surface; whatever a browser says is checked."""
        scene, kind = client.scene, wished.kind
        if kind == "surface" and isinstance(field, HasDensity):
            found = surface_at(field, wished.level)
            scene.set_background_image(None)
            if found is None:
                scene.remove_by_name("/surface")
            else:
                scene.add_mesh_simple(
                    "/surface", *found, color=(150, 150, 150), side="double", flat_shading=False
                )
            return
        scene.remove_by_name("/surface")
        *pose, fov, aspect = wished.camera
        norm = np.linalg.norm(pose[:4])
        if not (np.isfinite(norm) and norm > 0):
            return
        rotation = viser.transforms.SO3(np.array(pose[:4]) / norm).as_matrix()
        camera = camera_of(np.array(pose[4:]), rotation, fov, aspect, denoiser.size)
        if camera is not None:
            scene.set_background_image(picture(field, denoiser, camera, kind), jpeg_quality=90)

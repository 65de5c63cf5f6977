"""The page of `app.py`: two objects of one prompt growing side by side.

What a visitor types is shown in fields for text alone, becomes a part of a folder's name only as a-z, 0-9 and
hyphens (`runs.slug`), and reaches no command.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr  # noqa: E402  # pyright: ignore[reportMissingImports]  # optional

from sjc_debiased.folder.reader import RunReader  # noqa: E402
from sjc_debiased.folder.runs import RunError  # noqa: E402
from sjc_debiased.library import speaking_of_arguments  # noqa: E402
from sjc_debiased.pages import MODEL_VIEWER, VENDOR  # noqa: E402
from sjc_debiased.watching.pair import PAIR, Growing, Made, PairMaker  # noqa: E402

_LONGEST = 900  # characters of a message
_WAITING = 8  # people in the queue; more are told to come back
_KEPT_S = 24 * 3600  # of the copies that visitors download
_NARROW, _WIDE = 140, 300  # pixels; two narrow ones stand side by side on a phone
_ABOUT = (
    "One prompt, the same noise and cameras: on the left as SJC makes it, on the right as D-SDS does. Front "
    "and back are shown while they grow, because SJC likes to put a face on both."
)


def serve(page: gr.Blocks, host: str, port: int | None = None, wait: bool = True) -> str:
    """Serve the page, from this machine alone: fonts are the visitor's own; return its address.

    Args:
        port: None for the first free one from 7860. wait: until Ctrl-C.
    """
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=not wait,
        share=False,
        ssr_mode=False,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        head=f"<script>{(VENDOR / MODEL_VIEWER).read_text(encoding='utf-8')}</script>",
        footer_links=[],
        enable_monitoring=False,
        max_file_size=0,  # nothing is taken from visitors
    )
    return address


def build_page(maker: PairMaker) -> gr.Blocks:
    """Return the page, with its queue: one pair is made at a time."""
    words = maker.choice.profile.known_words
    running: dict[str, threading.Event] = {}
    with gr.Blocks(analytics_enabled=False, title="D-SDS on SJC", delete_cache=(3600, _KEPT_S)) as page:
        gr.Markdown("# SJC and D-SDS\n\n" + _ABOUT)
        prompt = gr.Textbox("a smiling cat", label="prompt", max_lines=3)
        if words:
            known = gr.Dropdown(list(words), value=None, label="add one of the words that this model knows")
            known.input(_with_word, [prompt, known], [prompt, known], api_visibility="private", queue=False)
        with gr.Row():
            steps = gr.Slider(1, maker.most_steps, min(300, maker.most_steps), step=1, label="steps")
            seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="seed")
        with gr.Row():
            make, cancel = gr.Button("make both", variant="primary"), gr.Button("stop and save")
        said = gr.Textbox(label="what happens", lines=2, max_lines=8, interactive=False)
        shown = _boxes()

        def pair(prompt: str, steps: float, seed: float | None, request: gr.Request) -> Iterator[tuple]:
            stop = running[str(request.session_hash)] = threading.Event()
            try:
                for text, *values in _grow(maker, prompt, int(steps), int(seed or 0), stop):
                    yield text, *(gr.update(value=value, visible=value is not None) for value in values)
            finally:
                running.pop(str(request.session_hash), None)

        def stop(request: gr.Request) -> None:
            if event := running.get(str(request.session_hash)):
                event.set()

        make.click(pair, [prompt, steps, seed], [said, *shown], api_visibility="private", concurrency_limit=1)
        cancel.click(stop, api_visibility="private", queue=False)
    return page.queue(max_size=_WAITING)


def _boxes() -> list[Any]:
    """Lay out what is shown of the two, side by side on a phone too; return it in the order of `_grow`.

    What there is nothing for yet is not seen.
    """
    kinds = (
        lambda name: gr.Image(label=f"{name}: front, back", interactive=False, buttons=[], visible=False),
        lambda name: gr.Video(
            label=f"{name}: turntable", loop=True, autoplay=True, buttons=[], visible=False
        ),
        lambda name: gr.HTML(label=f"{name}: mesh", container=True, show_label=True, visible=False),
        lambda name: gr.File(label=f"{name}: files", interactive=False, visible=False),
    )
    boxes: dict[str, list[Any]] = {"SJC": [], "D-SDS": []}
    for kind in kinds:
        with gr.Row():
            for name, its in boxes.items():
                with gr.Column(min_width=_WIDE if kind is kinds[-1] else _NARROW):  # names of files are long
                    its.append(kind(name))
    return [box for its in boxes.values() for box in its]


def _with_word(prompt: str, word: str | None) -> tuple[str, None]:
    return f"{prompt} {word}".strip() if word else prompt, None


def _grow(
    maker: PairMaker, prompt: str, n_steps: int, seed: int, stop: threading.Event
) -> Iterator[tuple[Any, ...]]:
    """Yield what the page shows: what is said, and for each of the two picture, video, mesh and files."""
    state: dict[str, list[Any]] = {preset: [None] * 4 for preset in PAIR}
    said: dict[str, str] = {}

    def show(text: str) -> tuple[Any, ...]:
        return text[:_LONGEST], *(shown for preset in PAIR for shown in state[preset])

    try:
        with speaking_of_arguments():
            work = maker.plan(prompt, seed, n_steps)
    except (ValueError, RunError) as error:
        yield show(str(error))
        return
    yield show("the scenes are made ...")
    for new in maker.make(work, stop):
        if isinstance(new, Growing):
            state[new.preset][0] = new.image_u8
            said[new.preset] = f"step {new.done} of {new.n_steps}"
        else:
            said[new.preset], state[new.preset][1:] = _results(new)
        yield show("; ".join(f"{preset}: {text}" for preset, text in said.items()))


def _results(made: Made) -> tuple[str, list[Any]]:
    """Return what is said of a run that has ended, and copies of its turntable, mesh and files.

    The page serves copies, so that nothing else of a run root can be asked for.
    """
    if made.folder is None:
        return made.problem, [None, None, None]
    run = RunReader(made.folder)
    place = Path(tempfile.mkdtemp(prefix="sjc-debiased-"))
    wanted = [run.turntable, run.contact_sheet, *made.folder.glob("mesh.glb")]
    copies = {path.name: shutil.copy2(path, place) for path in wanted if path.exists()}
    problem = run.result.get("mesh", {}).get("error", "")
    said = f"done: {made.folder.name}" + (f" (no mesh: {problem})" if problem else "")
    mesh = _turned(Path(copies["mesh.glb"])) if "mesh.glb" in copies else None
    return said, [copies.get(run.turntable.name), mesh, [*copies.values()]]


def _turned(glb: Path) -> str:
    """Return an element that turns a mesh by hand: `gr.Model3D` shows none that comes after the page."""
    data = base64.b64encode(glb.read_bytes()).decode()
    return (
        f'<model-viewer src="data:model/gltf-binary;base64,{data}" camera-controls touch-action="pan-y" '
        'interaction-prompt="none" loading="eager" alt="The mesh; drag, or use the arrow keys, to turn it" '
        'style="width: 100%; height: auto; aspect-ratio: 1"></model-viewer>'
    )

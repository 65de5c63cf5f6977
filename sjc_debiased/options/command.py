"""The command line's options, in the groups that `--help` shows.

Imports nothing heavy, so that `--help` and every error about an option are instant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagConversionOff, OmitArgPrefixes, UseAppendAction, arg

from prompts.debias import Normalized
from sjc_debiased.options.presets import PresetName
from sjc_debiased.options.profiles import STABLE_DIFFUSION
from sjc_debiased.settings import (
    DepthLoss,
    GuidanceForm,
    GuidanceSettings,
    Prompting,
    Settings,
    VSDModel,
    Weighting,
)
from voxnerf.settings import N_FACES, TEXTURE_SIZE, TURNTABLE_FRAMES, BackgroundMapping, Kernel, Start

ClipKind = Literal["none", "static", "dynamic"]
MeshFormat = Literal["glb", "ply", "obj"]
PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]

_OFF = arg(help_behavior_hint="")


def _models(name: str, metavar: str | None = None) -> Any:
    """Return what `--help` says of an option that a model has its own value of: its kind, and that of SD."""
    value = getattr(STABLE_DIFFUSION, name)
    its = f"{value:,g}" if isinstance(value, int | float) else value or "0"
    kind = metavar or type(value).__name__.upper()
    return arg(metavar=kind, help_behavior_hint=f"(default: the model's; {its} for SD)")


class OptionError(ValueError):
    """An option breaks a rule; the message says the rule, what was received, and the way out."""


@dataclass(frozen=True)
class Basic:
    """What to make, with which model, and where it goes."""

    prompt: Annotated[UseAppendAction[tuple[str, ...]], arg(aliases=["--sd.prompt"])]
    """What to make, for example "a smiling cat". Given more than once: several objects."""
    debias: Annotated[bool, _OFF] = False
    """Score and prompt debiasing: the same as --preset dsds."""
    model: str = "auto"
    """menagerie, menagerie-pixels, sd15, sd21, a diffusers folder, a .safetensors file, or a hub name; auto:
    sd15 with CUDA, else menagerie."""
    lora: Annotated[
        UseAppendAction[tuple[str, ...]], arg(metavar="FILE_OR_NAME[:SCALE]", help_behavior_hint="")
    ] = ()
    """A LoRA that is added to the model. Given more than once: several."""
    seed: int = 0
    """Decides the cameras, the initial scene, and the noise of every step."""
    seeds: Annotated[str | None, arg(metavar="N,N,...", help_behavior_hint="")] = None
    """Several seeds, as in 0,1,2: one object for each prompt and seed."""
    best_of: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None
    """Make N seeds from --seed on (all at a time, or as --pack says), rank them, and set the best aside."""
    n_steps: Annotated[int | None, _models("n_steps")] = None
    """Optimisation steps."""
    run_root: Path = Path("runs")
    """Parent of the numbered run folders."""
    dry_run: Annotated[bool, _OFF] = False
    """Print the resolved configuration and the view prompts, and stop."""


@dataclass(frozen=True)
class MethodOptions:
    """The paper's method: the score's bound, the views, the removed words."""

    preset: PresetName = "sjc"
    """The method, by the paper's table rows."""
    score_debias: Annotated[bool, _OFF] = False
    """Add dynamic clipping of the score to the preset."""
    prompt_debias: Annotated[bool, _OFF] = False
    """Add prompt debiasing (D-SDS's views, contradicting words removed) to the preset."""
    clip_kind: Annotated[
        ClipKind | None,
        arg(name="clip.kind", metavar="{none,static,dynamic}", help_behavior_hint="(default: the preset's)"),
    ] = None
    """static: at the one bound that is given; else at the start if the preset is static-low, at the end if
    not. dynamic: from start to end."""
    clip_start: Annotated[float | None, _models("clip_start"), arg(name="clip.start")] = None
    """Bound at the first step, in units of predicted noise."""
    clip_end: Annotated[float | None, _models("clip_end"), arg(name="clip.end")] = None
    """Bound at the last step."""
    front_half_deg: Annotated[float | None, _models("front_half_deg")] = None
    """Front prompts hold this far to either side; 45 without it with SJC's views."""
    keep: Annotated[tuple[str, ...], arg(metavar="WORD", help_behavior_hint="")] = ()
    """Words that prompt debiasing must not remove, beside the subject, articles and what connects."""
    pmi_normalized: Normalized = Prompting.pmi_normalized
    """What the second test of a word's PMI normalises over the views (docs/deviations.md)."""
    masked_lm: Annotated[str | None, _models("masked_lm")] = None
    """Hub name or folder of a BERT-format language model."""


@dataclass(frozen=True)
class SJCOptions:
    """The numbers of SJC: guidance, the start, the losses, the optimiser."""

    guidance: Annotated[float | None, _models("guidance"), arg(aliases=["--sd.scale"])] = None
    """Classifier-free guidance scale; without it 101 for SD with --guidance_form sds, 7.5 with vsd."""
    var_red: Annotated[
        FlagConversionOff[bool | None],
        arg(metavar="{True,False}", help_behavior_hint=f"(default: {GuidanceSettings.var_red})"),
    ] = None
    """Subtract the render (SJC Eq. 16) and not its noised copy (Eq. 15) from the denoised one."""
    n_noise: int = GuidanceSettings.n_noise
    """Noise samples per step."""
    guidance_form: Annotated[
        GuidanceForm | None,
        arg(metavar="{paas,sds,vsd}", help_behavior_hint="(default: the preset's; paas with SJC's)"),
    ] = None
    """paas: SJC's, the bound is on the direction. sds: DreamFusion's, the direction times a weight of its
    noise level, and the bound is on that. vsd: ProlificDreamer's, weighted as sds, against a second model
    that learns the renders (docs/frameworks.md)."""
    weighting: Annotated[
        Weighting | None,
        arg(
            metavar="{sds,uniform,fantasia3d}",
            help_behavior_hint="(default: the preset's, or sds; paas: none)",
        ),
    ] = None
    """Weight of a noise level: 1 - abar, 1, or sqrt(abar) (1 - abar)."""
    vsd_model: Annotated[
        VSDModel | None, arg(metavar="{lora,copy}", help_behavior_hint="(default: lora, with vsd)")
    ] = None
    """VSD's second model: the U-Net with a LoRA on its attention (needs the package peft), or a copy."""
    vsd_lr: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: 1e-4, with vsd)")] = (
        None
    )
    """AdamW step size of that model."""
    timesteps: Annotated[
        tuple[str, str] | None,
        arg(metavar="LOW HIGH", help_behavior_hint="(default: the preset's or the model's; else SJC's)"),
    ] = None
    """Draw timesteps from LOW up to, without, HIGH (10 970 is SJC's). Each is a number, or changes with the
    step: 20 0:980,5000:500 lowers the upper end over the first 5,000 steps."""
    schedule_steps: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: as n_steps)")] = (
        None
    )
    """Steps over which the clip's bound grows, and after a share of which emptiness weighs more; from then on
    both stay. With it a finished run can be given more steps."""
    lr: Annotated[float | None, _models("lr")] = None
    """Adamax step size of the grid."""
    background_lr: Annotated[float | None, _models("background_lr")] = None
    """Adamax step size of the background."""
    lr_end: Annotated[float | None, _models("lr_end")] = None
    """Share of both that is left at the end; they fall to it over the second half of the steps."""
    emptiness_weight: Annotated[float | None, _models("emptiness_weight")] = None
    """Weight of the emptiness loss."""
    emptiness_scale: float = Settings.emptiness_scale
    """Scale inside the emptiness loss."""
    emptiness_step: float = Settings.emptiness_step
    """Share of the steps after which the weight is multiplied."""
    emptiness_multiplier: Annotated[
        float | None, _models("emptiness_multiplier"), arg(aliases=["--emptiness_multipler"])
    ] = None
    """Factor on the weight from then on."""
    depth_weight: Annotated[
        float | None, arg(metavar="FLOAT", help_behavior_hint=f"(default: {Settings.depth_weight})")
    ] = None
    """Weight of the centre-depth loss."""
    depth_loss: DepthLoss = Settings.depth_loss
    """Sign inside the centre-depth loss: SJC's, or the one that was meant (docs/deviations.md)."""
    background: Annotated[BackgroundMapping | None, _models("background", "{published,seamless}")] = None
    """Background mapping: SJC's, or one whose pole is up and which has no seam."""
    start: Annotated[Start | None, _models("start", "{fog,blob,balls,dreamfusion}")] = None
    """First density: SJC's even fog, a blob amid nothing (ours or DreamFusion's), or two balls."""
    color_scale: Annotated[float | None, _models("color_scale")] = None
    """Standard deviation of the first colors, of grid and background."""
    color_mean: Annotated[tuple[float, ...] | None, _models("color_mean", "FLOAT ...")] = None
    """Mean of the grid's first colors, a number for each channel of the model's latents."""
    background_mean: Annotated[tuple[float, ...] | None, _models("background_mean", "FLOAT ...")] = None
    """Mean of the background's."""
    denoised_range: Annotated[tuple[float, ...] | None, _models("denoised_range", "FLOAT ...")] = None
    """Least values of the model's denoised latents, a number for each channel, then largest ones: guidance
    goes no further (Imagen's static thresholding)."""
    textureless: Annotated[float | None, _models("textureless")] = None
    """Share of the lit views that show no colors, with dreamfusion and magic3d; at most 0.75."""
    least_ambient: Annotated[float | None, _models("least_ambient")] = None
    """How much of a lit view's light comes from everywhere, at least."""
    shaken: Annotated[float | None, _models("shaken")] = None
    """Share of the shaking of cameras that see a lit scene."""
    resolution: Annotated[int | None, _models("resolution")] = None
    """Voxels along an axis of the grid."""


@dataclass(frozen=True)
class MeshOptions:
    """The turntable and the mesh that a run leaves."""

    mesh: Annotated[tuple[MeshFormat, ...], arg(metavar="{glb,ply,obj}")] = ("glb",)
    """Mesh formats to write."""
    mesh_level: Annotated[str, arg(name="mesh.level", metavar="auto|NUMBER")] = "auto"
    """Density of the surface. auto: the one whose silhouettes fit the pictures best."""
    mesh_faces: Annotated[int, arg(name="mesh.faces")] = N_FACES
    """At most so many triangles."""
    mesh_texture: Annotated[int, arg(name="mesh.texture")] = TEXTURE_SIZE
    """Pixels of the texture's sides; 0 for colors of vertices alone."""
    turntable: int = TURNTABLE_FRAMES
    """Frames of the turntable, which takes three seconds: a multiple of 24. Fewer make a sweep shorter."""


@dataclass(frozen=True)
class MachineOptions:
    """The machine: no part of the method. Precision changes an object a little, the rest its last digits."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N, or mps (untested)."""
    precision: PrecisionName = "auto"
    """Of the U-Net. auto: float16 on CUDA; on a CPU bfloat16 where it has units for it, else float32."""
    kernel: Kernel = "auto"
    """Of the renderer. auto: the fused one of the device where it works, else torch."""
    compile: Annotated[bool, _OFF] = False
    """Compile the U-Net (torch.compile): a minute at the start, faster steps on a GPU."""
    pack: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None
    """Objects that are optimised at a time, in one call of the U-Net: one, or with --best_of all N."""
    local_files_only: Annotated[bool, _OFF] = False
    """Never ask the hub."""
    resume: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Go on with this run folder, which must have the same options. The same command finds it by itself."""

    @property
    def at_a_time(self) -> int:
        """Return how many objects are optimised together."""
        return self.pack or 1


@dataclass(frozen=True)
class WatchOptions:
    """Looking at a run while it goes on (docs/viewing.md)."""

    viewer: Annotated[bool, _OFF] = False
    """Show the object in the browser, to turn, pause and change it. Needs viser."""
    viewer_host: str = "127.0.0.1"
    """Address that the viewer listens at. 0.0.0.0: whoever reaches this machine can look, and change."""
    tensorboard: Annotated[bool, _OFF] = False
    """Write the log and the previews for TensorBoard, too. Needs tensorboard."""


@dataclass(frozen=True)
class Options:
    """Turn a prompt into a 3D object with Score Jacobian Chaining, debiased as D-SDS does it."""

    basic: OmitArgPrefixes[Basic]
    method: OmitArgPrefixes[MethodOptions] = field(default_factory=MethodOptions)
    sjc: OmitArgPrefixes[SJCOptions] = field(default_factory=SJCOptions)
    mesh: OmitArgPrefixes[MeshOptions] = field(default_factory=MeshOptions)
    machine: OmitArgPrefixes[MachineOptions] = field(default_factory=MachineOptions)
    watch: OmitArgPrefixes[WatchOptions] = field(default_factory=WatchOptions)

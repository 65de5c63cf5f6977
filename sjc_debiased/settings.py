"""What the loop, its guidance and its prompts are told: the one place of SJC's numbers on Stable Diffusion.

Options, profiles and the reader of run folders take their defaults from here, and those of the grid from
`voxnerf.settings`. Imports nothing heavy. A field that comes later has as its default what was done before
it: so the options of older runs are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prompts.views import SJC_VIEWS, ViewScheme, view_scheme
from sjc_debiased.schedules import ClipSchedule
from voxnerf.settings import EMPTINESS_SCALE, TEXTURELESS

if TYPE_CHECKING:
    from prompts.debias import Normalized

DepthLoss = Literal["published", "corrected"]
GuidanceForm = Literal["paas", "sds", "vsd"]
Weighting = Literal["sds", "uniform", "fantasia3d"]
VSDModel = Literal["lora", "copy"]


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know.

    Attributes:
        n_steps: optimisation steps.
        schedule_steps: over how many of them the schedules run, of bound and emptiness; 0 for all.
        lr, background_lr: Adamax step sizes.
        lr_end: what is left of them at the end of the schedule: they fall linearly over its second half.
        clip: bound on the direction; `ClipSchedule(None, None)` is SJC's.
        denoised_range: of `clipping.within`; empty for none.
        emptiness_weight, emptiness_scale: of the emptiness loss (`march` defines it); the weight is
            multiplied by `emptiness_multiplier` after the share `emptiness_step` of the schedule's steps.
        depth_weight, depth_loss: of `center_depth_loss`.
        orientation_start, orientation_end: weight of a lit field's `Rendering.orientation`, which grows
            linearly over the first half of the schedule's steps.
        sparsity_weight: of `sparsity_loss`.
        roughness_weight: of the roughness of a field that has a surface.
    """

    n_steps: int = 10_000
    schedule_steps: int = 0
    lr: float = 0.05
    background_lr: float = 1e-4
    lr_end: float = 1.0
    clip: ClipSchedule = ClipSchedule(None, None)
    denoised_range: tuple[float, ...] = ()
    emptiness_weight: float = 1e4
    emptiness_scale: float = EMPTINESS_SCALE
    emptiness_step: float = 0.5
    emptiness_multiplier: float = 20.0
    depth_weight: float = 0.0
    depth_loss: DepthLoss = "published"
    orientation_start: float = 0.0
    orientation_end: float = 0.0
    sparsity_weight: float = 0.0
    roughness_weight: float = 0.0

    def lr_share_at(self, step: int) -> float:
        """Return which share of `lr` and `background_lr` is a step's size."""
        late = min(max(2 * step / (self.schedule_steps or self.n_steps) - 1, 0.0), 1.0)
        return 1 - late * (1 - self.lr_end)

    def emptiness_weight_at(self, step: int) -> float:
        """Return the weight of the emptiness loss at a step."""
        late = step >= self.emptiness_step * (self.schedule_steps or self.n_steps)
        return self.emptiness_weight * (self.emptiness_multiplier if late else 1.0)

    def orientation_weight_at(self, step: int) -> float:
        """Return the weight of the orientation at a step."""
        share = min(2 * step / (self.schedule_steps or self.n_steps), 1.0)
        return (1 - share) * self.orientation_start + share * self.orientation_end


@dataclass(frozen=True)
class GuidanceSettings:
    """What is asked of the 2D model in one step.

    Attributes:
        scale: of classifier-free guidance.
        n_noise: noised copies per step; var_red: SJC Eq. 16 (True) or 15.
        timesteps: (low, high) that noise levels are drawn between, as texts of `schedules.TimestepRange`;
            None for SJC's.
        guidance_form: SJC's, DreamFusion's or ProlificDreamer's (`guidance.build`).
        weighting: of noise levels (`guidance.sds.weight`); None with SJC's.
        vsd_model, vsd_lr: ProlificDreamer's second model and its step size; None with the others.
    """

    scale: float = 100.0
    n_noise: int = 1
    var_red: bool = True
    timesteps: tuple[str, str] | None = None
    guidance_form: GuidanceForm = "paas"
    weighting: Weighting | None = None
    vsd_model: VSDModel | None = None
    vsd_lr: float | None = None


@dataclass(frozen=True)
class Viewing:
    """From where, and in which light, the steps see the scene (`viewing.draw_views`).

    Attributes:
        cameras: SJC's law, or DreamFusion's.
        highest_deg: elevation of DreamFusion's cameras.
        light: the law of `voxnerf.lights.draw_light`, for a scene of RGB that is lit; None for one of the 2D
            model's own pictures, which is not.
        textureless, least_ambient: of that law, see there.
        albedo_share: of the schedule's steps, the first, which are not lit: threestudio's 2,001 of 10,000.
        shaken: the share of the shaking of DreamFusion's cameras.
    """

    cameras: Literal["sjc", "dreamfusion"] = "sjc"
    highest_deg: float = 90.0
    light: Literal["dreamfusion", "magic3d"] | None = None
    textureless: float = TEXTURELESS
    least_ambient: float = 0.0
    albedo_share: float = 2001 / 10_000
    shaken: float = 1.0


@dataclass(frozen=True)
class Prompting:
    """How a prompt is told to the 2D model: the ranges of the views, and which words are removed.

    Attributes:
        views: a scheme of `prompts.views.VIEW_SCHEMES`.
        front_half_deg: how far to either side of azimuth 0 its front prompts hold, degrees.
        masked_lm: the language model of prompt debiasing; None removes no word.
        keep: words that it must not remove, beside the subject, articles and what connects.
        pmi_normalized: as `prompts.debias.debias_prompt` has it.
    """

    views: Literal["sjc", "dsds"] = "sjc"
    front_half_deg: float = SJC_VIEWS.front_half_deg
    masked_lm: str | None = None
    keep: tuple[str, ...] = ()
    pmi_normalized: Normalized = "pmi"

    @property
    def scheme(self) -> ViewScheme:
        """Return which camera angles are which view, and what is put before the prompt for each."""
        return view_scheme(self.views, self.front_half_deg)

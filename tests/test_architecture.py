"""The arrows between the rooms, and that nothing heavy is imported with a name."""

import ast
import hashlib
import re
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
MODELS = ROOT / "sjc_debiased/models"
MAKES_MODELS = {  # names an adapter, inside functions
    "adapt_sd": MODELS / "stable_diffusion.py",
    "adapt_if": MODELS / "deepfloyd.py",
}
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
NOT_AT_IMPORT = ("TYPE_CHECKING", "__name__ == '__main__'")


def run_at_import(nodes):
    """Yield what runs when a file is imported, in `if` and `try` blocks too; not what is for types alone."""
    for node in nodes:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            aside = isinstance(node, ast.If) and ast.unparse(node.test) in NOT_AT_IMPORT
            yield from run_at_import(node.orelse if aside else ast.iter_child_nodes(node))


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = run_at_import(tree.body) if top_level_only else ast.walk(tree)
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
        allowed = ALLOWED[room] | (ADAPTERS if path in MAKES_MODELS.values() else set())
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {used - allowed}"


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_one_arrow_between_an_adapter_and_the_method(adapter):
    """An adapter imports the contract; the method names an adapter only where its family is loaded."""
    assert adapter in {*imports(MAKES_MODELS[adapter])}
    assert adapter not in {*imports(MAKES_MODELS[adapter], top_level_only=True)}


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
    contract = {"sjc_debiased.denoiser", "sjc_debiased.models.compiled"}
    ours = {name for name in imports(ROOT / f"{adapter}.py") if name.split(".")[0] in OURS}
    assert contract <= ours <= contract | {"sjc_debiased.models.tokens"}
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
        assert digest == module.PLACES_DIGEST, f"Write PLACES_DIGEST = {digest!r} into {module.__name__}."


def test_each_module_stands_once_in_the_map_of_rooms():
    """In `docs/rooms.md`, under its folder; an `__init__.py` only if it defines anything."""
    by_room = re.split(r"^### `(.*)/`$", (ROOT / "docs/rooms.md").read_text(), flags=re.M)[1:]
    named = [
        f"{room}/{module}".removeprefix("/")
        for room, rows in zip(by_room[::2], by_room[1::2])
        for module in re.findall(r"^\| `(\w+\.py)` \|", rows, flags=re.M)
    ]
    paths = [path for room in ALLOWED for path in files(room)]
    does = (ast.FunctionDef, ast.ClassDef)
    there = [
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.name != "__init__.py" or any(isinstance(n, does) for n in ast.parse(path.read_text()).body)
    ]
    assert sorted(named) == sorted(there)


def test_the_way_from_a_prompt_to_a_mesh_leads_to_functions():
    """Each `file:function` of `docs/rooms.md` is one."""
    steps = re.findall(r"`([\w/]+\.py):([\w.]+)`", (ROOT / "docs/rooms.md").read_text())
    assert steps
    for file, name in steps:
        path = next(p for p in (ROOT / file, ROOT / "sjc_debiased" / file) if p.exists())
        body, found = ast.parse(path.read_text()).body, None
        for part in name.split("."):
            found = next((n for n in body if getattr(n, "name", None) == part), None)
            assert found, f"{file} has no {name}"
            body = found.body


def test_files_and_functions_stay_small():
    for room in ALLOWED:
        for path in files(room):
            text = path.read_text()
            assert len(text.splitlines()) <= 300, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 61, f"{path}: {node.name}"

"""Options of the commands by their names alone, whatever group they are in."""

from dataclasses import fields

from sjc_debiased.options.command import (
    Basic,
    MachineOptions,
    MeshOptions,
    MethodOptions,
    Options,
    SJCOptions,
    WatchOptions,
)
from sjc_debiased.sweep import SweepOptions

GROUPS = {
    "basic": Basic,
    "method": MethodOptions,
    "sjc": SJCOptions,
    "mesh": MeshOptions,
    "machine": MachineOptions,
    "watch": WatchOptions,
}


def options(**given) -> Options:
    made = {}
    for name, group in GROUPS.items():
        own = {f.name for f in fields(group)} & given.keys()
        made[name] = group(**{field: given.pop(field) for field in own})
    assert not given, f"no such options: {given}"
    return Options(**made)


def sweep_options(**given) -> SweepOptions:
    own = {f.name for f in fields(SweepOptions)} & given.keys()
    return SweepOptions(
        **{name: given.pop(name) for name in own}, run=options(**{"prompt": (), "seeds": "0,1,2"} | given)
    )

"""Packages that only some options need, asked for before any long work. Imports nothing heavy."""

from __future__ import annotations

import socket
from importlib.util import find_spec

from sjc_debiased.options.command import OptionError, WatchOptions


def check_extra(asked: str, package: str) -> None:
    """Refuse what needs a package that is not installed.

    Args:
        asked: what needs it, as the person wrote it.

    Raises:
        OptionError: names the package and the command that installs it.
    """
    if find_spec(package) is None:
        raise OptionError(
            f"{asked} needs the package {package}. It is not installed. Install it: pip install {package}"
        )


def check_address(asked: str, host: str) -> None:
    """Refuse an address that this machine cannot listen at.

    Args:
        asked: the option's name.

    Raises:
        OptionError: names it.
    """
    try:
        place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(place[0]) as tried:
            tried.bind(place[4])
    except (OSError, UnicodeError) as error:
        raise OptionError(
            f"{asked} must be an address of this machine. {host!r} is none ({error}). Leave it out for "
            "127.0.0.1, this machine alone."
        ) from error


def check_watching(options: WatchOptions, pack: int) -> None:
    """Refuse to look at runs with a package that is not there, or at several at a time.

    Raises:
        OptionError: says which option cannot be followed, and why.
    """
    if options.tensorboard:
        check_extra("--tensorboard", "tensorboard")
    if options.viewer_host != WatchOptions.viewer_host and not options.viewer:
        raise OptionError(
            f"--viewer_host belongs to --viewer. It is {options.viewer_host} without it. Add --viewer, or "
            "leave it out."
        )
    if options.viewer:
        check_extra("--viewer", "viser")
        check_address("--viewer_host", options.viewer_host)
        if pack > 1:
            raise OptionError(
                f"--viewer shows one run at a time. --pack is {pack}. Leave one of them out; runs one after "
                "the other are shown as they come."
            )

"""What the shipped configuration offers."""

from importlib.resources import files


def leaves(group: str) -> list[str]:
    """Names of the yamls of a configuration group."""
    folder = files("nasflow.conf").joinpath(group)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))

"""Print the requirements, development ones included, one a line: what pip installs where libvirt cannot be built."""

import argparse
import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def requirements(pyproject: Path, without: set[str]) -> list[str]:
    """The requirement strings of `pyproject`, without the projects named."""
    project = tomllib.loads(pyproject.read_text())["project"]
    everything = project["dependencies"] + project["optional-dependencies"]["dev"]
    return [line for line in everything if re.split(r"[^A-Za-z0-9._-]", line)[0] not in without]


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", action="append", default=[], metavar="PROJECT", help="leave this one out")
    print(*requirements(PYPROJECT, set(parser.parse_args().without)), sep="\n")


if __name__ == "__main__":
    main()

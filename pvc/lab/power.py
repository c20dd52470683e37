"""What a host's BMC or watchdog calls to learn of its power or switch it.

`python -m pvc.lab.power DIR HOST get|on|off|reset`
"""

from __future__ import annotations

import sys
from pathlib import Path

from pvc.errors import PvcError
from pvc.lab.lab import Lab


def main() -> int:
    """Exit code 1 and a message when it could not be done; `get` prints on or off. A frozen host is on."""
    directory, name, what = sys.argv[1:]
    try:
        host = Lab.load(Path(directory)).host(name)
        if what == "get":
            print("on" if host.init is not None else "off")
        if what == "off":
            host.cut_power()
        if what == "on":
            host.boot()
        if what == "reset":
            host.reset()
    except PvcError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

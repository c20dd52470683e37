"""`pvcd` with a defect, for the test of the tests: it breaks on a priority above 60."""

from __future__ import annotations

from typing import Any

from pvc.commands import vm_settings
from pvc.daemon.main import main
from pvc.gateway import commands

real_decode = commands.Fields.decode


def decode(self: Any, struct: Any, values: Any) -> Any:
    command = real_decode(self, struct, values)
    if isinstance(command, vm_settings.SetVmPriority) and command.priority > 60:
        raise ZeroDivisionError
    return command


commands.Fields.decode = decode  # type: ignore[method-assign]

if __name__ == "__main__":
    main()

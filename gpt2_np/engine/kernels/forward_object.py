"""The compilation of the fused forward pass in a process of its own, which writes the object file that `object_code`
links.

Only the forward pass is optimised and generated there (`link_time`): none of the kernels within it could be called.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from ...system.garbage import without_garbage_collection
from . import object_code

# The new process finds modules where this one does, whose first folder may not be the working directory.
COMMAND = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import write; write(*sys.argv[2:])"


def object_file(code: str, head: str) -> bytes | None:
    """Compile `fused.forward` for weights of these dtypes in another process, and return the object file with its
    header; None if that isn't possible here, and Numba must compile it in this process.
    """
    if not os.path.basename(sys.executable or "").startswith("python"):  # a program that embeds Python
        return None
    command = [sys.executable, "-c", COMMAND, json.dumps(sys.path), code, head]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def write(code: str, head: str) -> None:
    """Compile the forward pass in this process, and write the object file to stdout."""
    sys.modules["scipy"] = None  # type: ignore[assignment]  # Numba would load it, for products that nothing here needs
    with without_garbage_collection():
        from . import compiled, link_time

        compiled.KernelCache.stored = False
        with link_time.optimised_once(lambda name: name.startswith(compiled.ENTRY)):
            from . import fused
            from .threads import layer

            made = fused.forward(code, head)
        _, _, (machine_code, _) = made._library.serialize_using_object_code()
        sys.stdout.buffer.write(object_code.with_header(machine_code, made.native_name, layer()))

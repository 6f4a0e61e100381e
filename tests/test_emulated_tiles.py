"""The kernels for AMX, on any processor with AVX-512: their instructions are emulated (`tile_emulation`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_np.engine.kernels.simd import AVX512

FILES = ("test_simd.py", "test_bfloat16_inputs.py", "test_quantize.py", "test_float32_packing.py")


@pytest.mark.slow
@pytest.mark.skipif(not AVX512, reason="whatever has AMX has AVX-512, which its kernels use beside tiles")
def test_kernels_for_tiles(tmp_path: Path) -> None:
    here = Path(__file__).parent
    options = "-q -n 0 -p no:cacheprovider -p tile_emulation".split()
    command = [sys.executable, "-m", "pytest", *options, "-k", "not bundled", *[str(here / file) for file in FILES]]
    environment = os.environ | {"PYTHONPATH": str(here), "XDG_CACHE_HOME": str(tmp_path), "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=here.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, "a kernel for tiles was left out"

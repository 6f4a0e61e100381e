"""Random initial parameters, for training from scratch."""

from __future__ import annotations

import math

import numpy as np

from ..model.config import Config
from ..model.params import Params, assemble, shapes

Array = np.ndarray


def initial(config: Config, seed: int) -> Params:
    """Return random float32 parameters, initialised as transformers does (Radford et al. 2019, section 2.3).

    Matrices and embeddings are normal with a deviation of 0.02, those that write into the residual stream with
    0.02 ÷ √(2·layers); norms are 1 and biases 0. What an activation itself learns starts as transformers has it.
    """
    random, tensors = np.random.default_rng([seed, 0]), {}
    known = {"act.weight": 0.25, "act.alpha_p": math.log(math.expm1(0.8)), "act.alpha_n": math.log(math.expm1(0.3))}
    for name, shape in shapes(config).items():
        fixed = next((value for end, value in known.items() if name.endswith(end)), None)
        if fixed is not None:
            tensors[name] = np.full(shape, fixed, np.float32)
        elif len(shape) == 1:
            tensors[name] = np.full(shape, float(name.endswith("weight")), np.float32)
        else:
            deviation = 0.02 / (math.sqrt(2 * config.n_layer) if name.endswith("c_proj.weight") else 1)
            tensors[name] = random.standard_normal(shape, np.float32) * np.float32(deviation)
    return assemble(tensors, config)

"""Write tests/golden/captum.json: captum's attributions of the tokens of prompts to tiny models, in float64.

    python -m venv v && v/bin/pip install captum torch transformers safetensors
    v/bin/python scripts/make_golden_captum.py tests/golden/captum.json

The models are those of tests/tiny_models.py, run by transformers from their embeddings.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
import tiny_models
import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients, Saliency
from transformers import GPT2Config, GPT2LMHeadModel

STEPS = 50
A, B = 4, 11  # the metric is the logit of one less that of the other, at the last position


def model_of(spec: dict[str, Any]) -> GPT2LMHeadModel:
    """The tiny model as transformers has it."""
    model = GPT2LMHeadModel(GPT2Config(**{name: value for name, value in spec.items() if name != "seed"}))
    tensors = {f"transformer.{name}": torch.tensor(x) for name, x in tiny_models.tensors(spec).items()}
    if "transformer.lm_head.weight" in tensors:
        tensors["lm_head.weight"] = tensors.pop("transformer.lm_head.weight")
    else:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    model.load_state_dict(tensors, strict=False)
    return model.double().eval()


def main(out: Path) -> None:
    """One case a model: the ids and each method's scores, (T,)."""
    cases = []
    for number in (1, 2, 4):
        spec = tiny_models.MODELS[number]
        model = model_of(spec)
        ids = np.random.default_rng(number).integers(0, spec["vocab_size"], 9)
        embedding = model.transformer.wte(torch.tensor(ids))[None].detach().requires_grad_()

        def metric(x: torch.Tensor, model: GPT2LMHeadModel = model) -> torch.Tensor:
            last = model(inputs_embeds=x).logits[:, -1]
            return last[:, A] - last[:, B]

        mask = torch.arange(len(ids))[None, :, None].expand_as(embedding)
        found = {
            "saliency": Saliency(metric).attribute(embedding, abs=False).pow(2).sum(-1).sqrt(),
            "input_x_gradient": InputXGradient(metric).attribute(embedding).sum(-1),
            "integrated_gradients": IntegratedGradients(metric)
            .attribute(embedding, baselines=0.0, n_steps=STEPS, method="gausslegendre")
            .sum(-1),
            "occlusion": FeatureAblation(metric).attribute(embedding, baselines=0.0, feature_mask=mask)[..., 0],
        }
        scores = {name: x.detach()[0].tolist() for name, x in found.items()}
        cases.append({"model": number, "ids": ids.tolist(), "scores": scores})
    about = {name: version(name) for name in ("captum", "torch", "transformers")}
    out.write_text(json.dumps({"made_with": about, "tokens": [A, B], "steps": STEPS, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What others published of the official models, wherever their weights and the harness's data sets are.

``pytest -m published tests/test_published_figures.py`` needs lm_eval and downloads data sets, but no weights.
"""

from __future__ import annotations

import huggingface_hub
import pytest

from gpt2_np import GPT2
from gpt2_np.evaluation import published
from gpt2_np.weights import hub

pytestmark = [pytest.mark.published, pytest.mark.filterwarnings("ignore")]
NAMES = sorted({figure.model for figure in published.HARNESS})


@pytest.mark.parametrize("name", NAMES)
def test_published_figures(name: str) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval isn't installed: pip install '.[evaluate]'")
    if not isinstance(huggingface_hub.try_to_load_from_cache(hub.OFFICIAL[name], "model.safetensors"), str):
        pytest.skip(f"the weights of {name} are not in the cache; 'gpt2-np info --model {name}' downloads them")
    checks = list(published.check(name, published.on_model(GPT2.from_pretrained(name))))
    assert [check for check in checks if not check.passed] == []

"""What docs/decoding says of each way to decode: formula, source, when to use it, and the call that its picture shows."""

from __future__ import annotations

from typing import Any, NamedTuple

PROMPT = "Once upon a time there was a king who had a"
AGAIN = "The cat sat by the fire and the dog sat by the"


class Entry(NamedTuple):
    """One option or strategy. ``options`` are those of the call; ``random`` says that it draws."""

    title: str
    what: str
    formula: str
    source: str
    when: str
    options: dict[str, Any]
    random: bool = True
    prompt: str = PROMPT
    picture: bool = True


WARPERS = [
    Entry(
        "temperature",
        "Sharpens (below 1) or flattens (above 1) the whole distribution.",
        r"p'_i \propto p_i^{1/T}",
        "Ackley, Hinton, Sejnowski 1985",
        "The first thing to turn: 0.7 to 1 for text that should stay on course.",
        {"temperature": 0.5},
    ),
    Entry(
        "dynatemp_range",
        "A temperature that follows the entropy: low where the model is sure, high where it isn't.",
        r"T = T_{lo} + (T_{hi} - T_{lo})\,(H / \ln n)^{e}",
        "llama.cpp, `llama_sampler_temp_ext_apply`",
        "When one temperature is too dull in some places and too wild in others.",
        {"temperature": 0.8, "dynatemp_range": 0.6},
    ),
    Entry(
        "top_k",
        "The k best tokens stay, and what ties with the last of them.",
        r"z_i \ge z_{(k)}",
        "Fan, Lewis, Dauphin 2018",
        "A cheap guard against nonsense; k doesn't know how sure the model is.",
        {"top_k": 5},
    ),
    Entry(
        "top_p",
        "The smallest set of best tokens with more than the probability p: the nucleus.",
        r"\sum_{i \in V_p} p_i > p",
        "Holtzman et al. 2020",
        "The usual choice for open text, with p from 0.9 to 0.95.",
        {"top_p": 0.6},
    ),
    Entry(
        "min_p",
        "What is at least a fraction of the best token's probability stays.",
        r"p_i \ge m \cdot \max_j p_j",
        "Nguyen et al. 2024",
        "With high temperatures: it stays strict where the model is sure.",
        {"min_p": 0.15},
    ),
    Entry(
        "typical_p",
        "Tokens whose surprise is near the entropy, up to a mass; the likeliest may go.",
        r"|{-\ln p_i} - H|",
        "Meister et al. 2023",
        "Against bland text: what is too predictable may go too.",
        {"typical_p": 0.5},
    ),
    Entry(
        "epsilon_cutoff",
        "What is less likely than a fixed ε goes.",
        r"p_i \ge \varepsilon",
        "Hewitt et al. 2022",
        "A gentle cut of the far tail alone (3e-4 to 9e-4; larger here, to show).",
        {"epsilon_cutoff": 0.02},
    ),
    Entry(
        "eta_cutoff",
        "As epsilon, but lower where the entropy is high.",
        r"p_i \ge \min(\varepsilon, \sqrt{\varepsilon}\,e^{-H})",
        "Hewitt et al. 2022, section 3.2",
        "As epsilon, where many tokens may rightly be unlikely.",
        {"eta_cutoff": 0.1},
    ),
    Entry(
        "top_h",
        "The best tokens while their entropy stays within a share of the distribution's.",
        r"H(\text{kept}) \le h \cdot H",
        "Potraghloo et al. 2025",
        "Bounds how random a step can be, not how long its list is.",
        {"top_h": 0.4},
    ),
    Entry(
        "top_n_sigma",
        "Scores less than n standard deviations below the best stay.",
        r"z_i \ge \max_j z_j - n\,\sigma(z)",
        "Tang et al. 2024",
        "Before any temperature: the set doesn't depend on it.",
        {"top_n_sigma": 1.0},
    ),
    Entry(
        "xtc_probability",
        "Now and then all of the top choices but the least likely one go.",
        r"\{i : p_i \ge t\} \text{ but the least likely}",
        "p-e-w 2024; llama.cpp, `llama_sampler_xtc_apply`",
        "For surprising turns in stories; combine it with min_p, which guards the tail.",
        {"xtc_probability": 1.0, "xtc_threshold": 0.08},
    ),
    Entry(
        "mirostat",
        "Truncates so that what is drawn surprises by τ bits on average.",
        r"-\log_2 p_i \le \mu, \quad \mu \leftarrow \mu - \eta\,(S - \tau)",
        "Basu et al. 2021, version 2",
        "Long texts that drift into repetition or incoherence.",
        {"mirostat": 2, "mirostat_tau": 3.0},
    ),
    Entry(
        "mirostat, version 1",
        "The same aim by a top-k whose k follows from Zipf's law.",
        r"k = \left(\frac{\hat\epsilon\,2^\mu}{1 - V^{-\hat\epsilon}}\right)^{1/\hat s}",
        "Basu et al. 2021, algorithm 1",
        "To compare with the paper; version 2 is simpler.",
        {"mirostat": 1, "mirostat_tau": 3.0},
    ),
]

PENALTIES = [
    Entry(
        "repetition_penalty",
        "What occurred loses: negative scores times, others divided by the penalty.",
        r"z_i \leftarrow z_i / \theta \text{ or } z_i\,\theta",
        "Keskar et al. 2019",
        "Loops in greedy text; 1.1 to 1.3. It also hits words that must come again.",
        {"repetition_penalty": 1.3},
        False,
        AGAIN,
    ),
    Entry(
        "presence_penalty",
        "Subtracted once from what was generated before; the prompt doesn't count, but llama.cpp "
        "counts the last n ids.",
        r"z_i \leftarrow z_i - a\,[c_i > 0]",
        "OpenAI's API; llama.cpp",
        "To talk about new things.",
        {"presence_penalty": 2.0, "penalty_last_n": 64},
        False,
        AGAIN,
    ),
    Entry(
        "frequency_penalty",
        "Subtracted for each time.",
        r"z_i \leftarrow z_i - b\,c_i",
        "OpenAI's API; llama.cpp",
        "Against words that come again and again.",
        {"frequency_penalty": 1.5, "penalty_last_n": 64},
        False,
        AGAIN,
    ),
    Entry(
        "dry_multiplier",
        "What would continue a repetition loses, the more the longer that is.",
        r"z_i \leftarrow z_i - m\,b^{\,L - a}",
        "p-e-w 2024; llama.cpp, `llama_sampler_dry_apply`",
        "Loops of whole phrases, without punishing single words.",
        {"dry_multiplier": 2.0},
        False,
        AGAIN,
    ),
    Entry(
        "no_repeat_ngram_size",
        "No n-gram comes twice.",
        r"(x_{t-n+1}, \dots, x_t) \notin \text{text}",
        "Paulus et al. 2018",
        "A hard stop for loops in beams; 3 or 4.",
        {"no_repeat_ngram_size": 3},
        False,
        AGAIN,
    ),
    Entry(
        "sequence_bias",
        "A bias on the token that would complete a sequence. `logit_bias` does it for single ids.",
        r"z_i \leftarrow z_i + b",
        "transformers",
        "To nudge a word up or down.",
        {"sequence_bias": [([" beautiful"], 2.0), ([" daughter"], -2.0)]},
        False,
    ),
    Entry(
        "bad_words_ids",
        "Sequences that never come.",
        r"z_i \leftarrow -\infty",
        "transformers",
        "A list of what must not be said. `suppress_tokens` and `begin_suppress_tokens` do it for ids, everywhere or at "
        "the start.",
        {"bad_words_ids": [[" daughter"], [" son"]]},
        False,
    ),
    Entry(
        "exponential_decay_length_penalty",
        "End-of-text becomes likelier with every token past a start.",
        r"z_{eos} \leftarrow z_{eos} + |z_{eos}|\,(f^{\,i} - 1)",
        "transformers",
        "Texts of about a length, not cut off. `min_new_tokens` and `forced_eos_token_id` are its hard companions.",
        {"exponential_decay_length_penalty": (5, 1.3)},
        False,
        picture=False,
    ),
    Entry(
        "guidance_scale",
        "Away from what would follow another prompt.",
        r"\log p \leftarrow \log p_0 + s\,(\log p - \log p_0)",
        "Sanchez et al. 2023",
        "To follow a prompt more closely, or to avoid the negative one.",
        {"guidance_scale": 2.0, "negative_prompt_ids": "She was a"},
        False,
    ),
    Entry(
        "watermarking_config",
        "A hash of the last id colours a quarter of all tokens green; green ones gain a bias, "
        "which a detector finds again.",
        r"z_i \leftarrow z_i + \delta\,[i \in G(x_{t-1})]",
        "Kirchenbauer et al. 2023",
        "To recognise one's own text later (`decoders.watermark.WatermarkDetector`).",
        {"watermarking_config": {"bias": 3.0}},
        False,
    ),
    Entry(
        "watermarking_config (SynthID)",
        "A tournament among the candidates, played by the bits of a keyed hash.",
        r"p_i \leftarrow p_i\,(1 + g_i - \textstyle\sum_j g_j p_j)",
        "Dathathri et al. 2024",
        "As above, without changing the distribution on average.",
        {"watermarking_config": {"ngram_len": 5, "keys": [3, 11, 27, 41]}},
    ),
]

SEARCHES = [
    Entry(
        "greedy",
        "Always the likeliest token.",
        r"\arg\max_i p_i",
        "",
        "Short factual answers; parity checks. It loops.",
        {},
        False,
    ),
    Entry(
        "sampling",
        "Each token is drawn; the seed gives what torch's gives.",
        r"\arg\max_i p_i / q_i,\; q_i \sim "
        r"\text{Exp}(1)",
        "torch, `multinomial`",
        "Open text, with the warpers above.",
        {"temperature": 0.8, "top_p": 0.95},
    ),
    Entry(
        "best of n",
        "Of n samples the one that the model finds likeliest per token.",
        r"\frac1n \sum \log p",
        "OpenAI's `best_of`",
        "When one sample is too risky and a beam too bland.",
        {"top_p": 0.95, "best_of": 8},
    ),
    Entry(
        "beam search",
        "The likeliest beginnings are followed side by side.",
        r"\frac{\sum \log p}{n^{\,\alpha}}",
        "transformers, `_beam_search`",
        "Translation-like tasks with one right answer.",
        {"num_beams": 4},
        False,
    ),
    Entry(
        "beam sampling",
        "Beams whose candidates are drawn without replacement.",
        r"\text{top}_K\; p_i / q_i",
        "transformers, `_beam_search`",
        "Some variety among likely texts.",
        {"num_beams": 4, "temperature": 1.2},
    ),
    Entry(
        "diverse beams",
        "Groups of beams, each penalised for what the groups before it chose.",
        r"\log p_i - \lambda\,c_i",
        "Vijayakumar et al. 2018",
        "Several answers that should differ.",
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 2.0},
        False,
    ),
    Entry(
        "constrained beams",
        "Every text contains the words asked for.",
        r"\text{banks by words met}",
        "transformers 4; Post and Vilar 2018",
        "Terms that must appear.",
        {"num_beams": 4, "force_words_ids": [" castle"]},
        False,
    ),
    Entry(
        "stochastic beams",
        "As many different texts as beams, drawn without replacement.",
        r"G_{\phi} = \phi + \text{Gumbel}",
        "Kool et al. 2019",
        "Unbiased estimates from few distinct samples.",
        {"num_beams": 4, "stochastic_beams": True},
    ),
    Entry(
        "contrastive search",
        "Of the k likeliest the one that least resembles what was said.",
        r"(1 - \alpha)\,p_i - \alpha \max_j \cos(h_i, h_j)",
        "Su et al. 2022",
        "Deterministic text that doesn't loop.",
        {"penalty_alpha": 0.6, "top_k": 4},
        False,
    ),
    Entry(
        "DoLa",
        "What the last layer says more than an early one does.",
        r"\log p_{last} - \log p_{early}",
        "Chuang et al. 2024",
        "Facts that emerge in late layers.",
        {"dola_layers": "high"},
        False,
    ),
]

"""Interpretability experiments on activations: one file per theme, each function pure, each with its source.

    variants     many edited runs of one prompt in batches, and the metrics that sweeps measure
    patching     activation patching over layers, positions and heads; path patching
    ablation     heads, MLPs and positions silenced: by zero, by their mean, by another text's values
    kept_parts   heads silenced one after another; a circuit alone, with all else silenced
    direct       a logit as a sum of the direct effects of heads, MLPs and embeddings
    heads        previous-token, duplicate-token and induction scores
    lens         the logit lens; the tuned lens, by least squares
    jacobian_lens  the Jacobian lens: fitted in parts, read, merged, saved to a file
    backward_lens  the words that a gradient would write into the MLPs
    lens_edits   a token's direction in the Jacobian lens added, removed, or exchanged for another token's
    circuits     QK and OV circuits, copying and composition scores, singular directions in words
    neurons      where in a corpus a neuron fires, and which words it raises
    tasks        pairs of prompts with a known right answer: indirect objects, possessives
    known_heads  the published heads of the indirect-object task, and the measure that identifies each class of them
    steering     directions added to the residual stream during generation
    patchscopes  a hidden state put into another prompt, which the model then continues
    function_vectors  a task shown by examples, as one direction
    processing   layer norms folded and weights centred: the same predictions in other coordinates
    dictionaries  sparse autoencoders and transcoders: loaded, spliced, evaluated, trained
    partial_runs  runs that stop at the last activation that is needed
    capture      activations of a corpus larger than memory, on disk
    labels       tokens in a form that tables and pictures can show
    corpus       texts of ids from files, one at a time
    page         one prompt on one web page (`page_graph` is its panel with an attribution graph)
    plots        pictures of results; needs matplotlib (`plots_attribution`, `plots_dictionaries`, `plots_graph`)

Decompositions of a run's residual stream are methods of `gpt2_np.model.activations.ActivationCache`.
"""

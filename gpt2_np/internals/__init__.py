"""Interpretability experiments on activations: one file per theme, each function pure, each with its source.

    variants     many edited runs of one prompt in batches, and the metrics that sweeps measure
    patching     activation patching over layers, positions and heads; path patching
    ablation     heads, MLPs and positions silenced: by zero, by their mean, by another text's values
    kept_parts   heads silenced one after another; a circuit by itself, all else silent
    direct       a logit as a sum of what each head, MLP and embedding says by itself
    heads        previous-token, duplicate-token and induction scores
    lens         the logit lens; the tuned lens, by least squares
    jacobian_lens  the Jacobian lens: fitted in parts, read, merged, kept in a file
    backward_lens  what a gradient would write into the MLPs, in words
    lens_edits   a token's direction in that lens added, taken away, exchanged for another's
    circuits     QK and OV circuits, copying and composition scores, singular directions in words
    neurons      where in a corpus a neuron fires, and what it raises
    tasks        pairs of prompts with a known right answer: indirect objects, possessives
    known_heads  the published heads of the indirect-object task, and what each class of them is known by
    steering     directions added to the stream while the model writes
    patchscopes  a hidden state put into another prompt, and what the model says of it
    function_vectors  a task shown by examples, as one direction
    processing   layer norms folded, weights centred: the same predictions in other coordinates
    dictionaries  sparse autoencoders and transcoders: loaded, spliced, evaluated, trained
    partial_runs  runs that go no further than what is asked of them
    capture      activations of a corpus larger than memory, on disk
    corpus       texts of ids from files, one at a time
    page         one prompt on one web page (`page_graph`: an attribution graph as a panel of it)
    plots        a picture of each; needs matplotlib (`plots_attribution`, `plots_dictionaries`, `plots_graph`)

Decompositions of a run's residual stream are methods of `gpt2_np.model.activations.ActivationCache`.
"""

"""One protein through a layer, behind `iga inspect`: numbers to look at, beside their bounds.

checkpoint   parameters from a file, read without running anything of it
layer        the layer that is looked at: a preset's, with a checkpoint's parameters, or a target of yours
protein      what one structure gives: Gaussians, scores, weights
extremes     the pairs and residues in which a quantity is worst
growth       new layers with more and more points
"""

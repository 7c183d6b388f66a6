"""The comparison of attention layers on SE(3) flow matching: data, task, network, training, report."""

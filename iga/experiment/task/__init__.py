"""The task: chains of residues, batches of them, the flow between noise and structure, and its sampler."""

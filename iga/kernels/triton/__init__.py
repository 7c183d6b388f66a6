"""The Triton implementation: `engine` in torch, and beside it what Triton compiles, each file with an underscore."""

"""The CPU implementation: `engine` in torch, and beside it what numba compiles, each file with an underscore."""

"""What generates and judges: the oracle, the adversarial search, the invariants and the run behind `iga verify`."""

"""What a fuzzer looks for: the check, seeds for it, and what it has found."""

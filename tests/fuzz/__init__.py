"""The fuzzer: its check, the files it starts from, and its findings."""

"""Who signs: credentials, a cache that keeps them current, and the places they come from."""

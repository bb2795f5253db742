"""Who signs: credentials, a cache that keeps them current, and where they are found."""

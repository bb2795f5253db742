"""The version, a constant: a copied or bundled package has no metadata to read it from."""

__all__ = ["__version__"]

__version__ = "0.2.0"

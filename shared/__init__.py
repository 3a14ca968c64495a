"""The product, a plain Python package; it knows nothing of HTTP or timers but in api/."""

__version__ = "0.1.0"

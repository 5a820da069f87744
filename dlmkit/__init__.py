"""dlmkit: compose, train, sample and measure diffusion language models from small parts."""

from dlmkit.plugin import Component, Config, Part, hookimpl, part_of

__version__ = "0.1.0"

__all__ = ["Component", "Config", "Part", "__version__", "hookimpl", "part_of"]

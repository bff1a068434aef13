"""LightningDataModules, one module for each kind of data; `module:` in configs/data/*.yaml names it."""

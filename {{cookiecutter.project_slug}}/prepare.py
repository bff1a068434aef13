"""Prepares data for training: text becomes tokens (`source=`), images become latents (`images=`)."""

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.tools.prepare import main

if __name__ == "__main__":
    run(main)

"""Images to latents, for data=latents: `python prepare_latents.py images=photos out=data/photos vae=my/vae`."""

from {{cookiecutter.package_name}}.cli import prepare, run
from {{cookiecutter.package_name}}.models.family import Script
from {{cookiecutter.package_name}}.tools.prepare.latents import OPTIONS
from {{cookiecutter.package_name}}.tools.prepare.latents import prepare_latents as run_prepare

USAGE = "images=<folder> out=<folder> vae=<folder or name on the hub> [key=value ...]"


def main(argv: list[str]) -> None:
    prepare("prepare_latents", Script(run_prepare, OPTIONS), argv, USAGE, "which images become latents, and how")


if __name__ == "__main__":
    run(main)

"""Images to latents, for data=latents: `python prepare_latents.py images=photos out=data/photos vae=my/vae`."""

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.options import prepare

USAGE = "images=<folder> out=<folder> vae=<folder or name on the hub> [key=value ...]"


def main(argv: list[str]) -> None:
    prepare("prepare_latents", argv, USAGE, "which images become latents, and how")


if __name__ == "__main__":
    run(main)

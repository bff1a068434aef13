"""Images to latents, for data=latents: `python prepare_latents.py images=photos out=data/photos vae=my/vae`."""

import sys

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.options import print_options, read_options

USAGE = "python prepare_latents.py images=<folder> out=<folder> vae=<folder or name on the hub> [key=value ...]"


def main(argv: list[str]) -> None:
    try:
        from {{cookiecutter.package_name}}.data.latents_prepare_latents import OPTIONS, prepare_latents

        if {"-h", "--help"} & set(argv):
            print_options(USAGE, {"which images become latents, and how": OPTIONS})
        else:
            prepare_latents(**read_options(argv, OPTIONS))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what is missing", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run(main)

"""The smallest run of a classifier, of the first family that has one."""

from {{cookiecutter.package_name}}.models import get_family

from ...conftest import FAMILIES

TINY = next(tiny for tiny in FAMILIES if get_family(tiny.family).predict is not None)

{%- set vit = cookiecutter.families in ("all", "vit") -%}
{%- set cnn = cookiecutter.families in ("all", "cnn") -%}
{%- set dit = cookiecutter.families in ("all", "dit") -%}
{%- set llm = cookiecutter.families in ("all", "llm") -%}
"""Model families, one folder each. For one more, add its folder, and a branch and a name here."""

from .family import Family, Script

NAMES = {{ '["vit", "cnn", "dit", "llm"]' if cookiecutter.families == "all" else '["' ~ cookiecutter.families ~ '"]' }}

__all__ = ["NAMES", "Family", "Script", "get_family"]


def get_family(name: str) -> Family:
    """Returns a family by name; only then are its modules and libraries imported."""
{%- if vit %}
    if name == "vit":
        from . import vit

        return vit.FAMILY
{%- endif %}
{%- if cnn %}
    if name == "cnn":
        from . import cnn

        return cnn.FAMILY
{%- endif %}
{%- if dit %}
    if name == "dit":
        from . import dit

        return dit.FAMILY
{%- endif %}
{%- if llm %}
    if name == "llm":
        from . import llm

        return llm.FAMILY
{%- endif %}
    raise ValueError(f"there is no family {name}; choose from {', '.join(NAMES)}")

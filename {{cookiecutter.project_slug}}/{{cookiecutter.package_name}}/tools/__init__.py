"""Optional tools: nothing in the rest of the package imports them."""

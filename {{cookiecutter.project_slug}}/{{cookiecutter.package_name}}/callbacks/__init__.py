"""What watches a run. Callbacks read norms through the net's modules and know no family by name."""

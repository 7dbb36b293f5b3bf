"""Ensembles of several runs: members and combiners of their logits."""

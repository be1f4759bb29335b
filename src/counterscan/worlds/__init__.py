"""Worlds: structural causal models that draw images with exact counterfactuals."""

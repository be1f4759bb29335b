"""Methods judged against exact counterfactuals of a world: ``counterscan bench``."""

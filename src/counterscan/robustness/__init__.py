"""Classifiers of images: trained, stressed by counterfactuals, and cured with them."""

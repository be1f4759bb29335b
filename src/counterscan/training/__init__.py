"""Training: autoencoders and denoisers in the diffusers format."""

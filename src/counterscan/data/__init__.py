"""Data: manifests, readers and the example images."""

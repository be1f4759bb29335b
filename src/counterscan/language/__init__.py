"""Words in, edits out."""

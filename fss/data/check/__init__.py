"""What a data set offers, beside the published numbers."""

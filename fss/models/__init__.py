"""Networks: backbones, heads, and the segmenters that combine them; pure torch."""

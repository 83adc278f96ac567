"""What a person sees in a terminal or a report: every word of a file made harmless."""

"""Pictures and masks in, episodes out."""

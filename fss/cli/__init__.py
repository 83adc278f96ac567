"""From a command line to objects; the one place that knows Hydra."""

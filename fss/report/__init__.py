"""Reports on runs: published claims compared with measurements, comparisons of runs, statistics and pages."""

"""Reports of runs: the published claims beside what was measured, comparisons, statistics, pages to read."""

"""What proves over long runs: kills, several processes, and who may know whom."""

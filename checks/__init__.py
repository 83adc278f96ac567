"""What proves over long runs: kills, damaged inputs, several processes, and who may know whom."""

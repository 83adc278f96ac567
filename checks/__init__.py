"""What proves the program over long runs: kills, fuzzing, several processes, and who may know whom."""

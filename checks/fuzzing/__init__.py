"""What the program reads, each as a target of damaged inputs.

Every module of this package that has a list `TARGETS` is found by `checks.fuzz`: a new group of readers is a
new file. See `checks.fuzzing.target.Target`.
"""

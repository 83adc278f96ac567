"""Processes: a group that trains together, commands that run alone, children that end with their parent."""

"""What proves the program over long runs; the short form of each check is among the tests."""

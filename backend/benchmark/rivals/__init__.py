"""Other published ways of giving each test a clean database, and ours, under one neutral suite."""

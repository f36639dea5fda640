"""What production does, as tests, to see which ways of isolating tests show it."""

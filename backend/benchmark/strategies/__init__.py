"""Known ways to give each test a clean database, each a pytest plugin on top of another.

A module holds what it does differently from the plugins that are loaded before it, which
`benchmark.strategies.STRATEGIES` names, and nothing else.
"""

"""The providers that `bearerd init` knows: one YAML file for each, with its questions and its config.

docs/providers.md shows the same configs, with the examples as answers; a test compares the two.
"""

"""What was asked for: YAML text -> Config, or every error with its place.

`source` knows YAML and places, `types` the shape, `load` the whole. `load` and `schema` are imported
only where used: they bring pydantic.
"""

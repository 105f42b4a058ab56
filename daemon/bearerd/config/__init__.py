"""What was asked for: YAML text -> Config, or every error with its place.

`source` knows YAML and places, `types` the shape, `load` the whole; `apart` does it in a child process.
`load` is imported only where used: it brings pydantic.
"""

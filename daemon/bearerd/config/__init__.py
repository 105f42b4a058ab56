"""YAML text -> Config, or every error with its place.

`files` reads the files, `source` reads YAML, `document` turns faults into problems that may be shown (`redaction`),
`models` and `values` are the shape (`schema` prints it), `rules` and `paths` check what spans several keys, `messages`
has the texts, `resolve` makes the Config, and `load` does all of it. `reader` runs `load` in a separate process,
since pydantic and the parser need much memory; `plain` carries the result. `locate` finds the socket without a parser.
"""

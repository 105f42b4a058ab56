"""What stands in which file, and how it gets there.

`render` (pure) makes a token's bytes for each format, `record` is bearerd's own copy, `atomic` replaces
one file, `publisher` does all of a target's, `lock` keeps a second daemon out.
"""

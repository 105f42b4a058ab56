"""The content of the files, and how it gets there.

`render` (pure) makes a token's bytes for each format, `record` is bearerd's own copy, `walk` opens a
directory and decides whom it trusts on the way, `atomic` replaces one file in it, `publisher` keeps all
files of a target, `lock` keeps a second daemon out.
"""

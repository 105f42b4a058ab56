"""Sources of secrets: a file, an environment variable, a systemd credential, or the output of a command.

`kinds.source_of` turns a `Reference` from the config into its `SecretSource`. Everything that depends on the kind is
in its source: how the secret is read, which files to watch, what `bearerd check` says about it, and whether it changed.
A new kind is one new source here, and one more line in `kinds`.
"""

"""A complete setup on one machine: `provider` is a token server with a protected API, `reader` a program without any
OAuth code, and `show` starts both and the real daemon, and counts.
"""

"""The whole thing on one machine: `provider` (token server and protected API), the real daemon, `reader`
(a program that knows nothing of OAuth), and `show`, which starts all three and counts.
"""

"""The content of the files, and how they are written.

render, template            the content of a file in each format
record                      bearerd's own copy of a token
walk                        opens a directory, and decides which symlinks and owners it trusts
atomic                      replaces one file
looks                       whether another program changed a file since it was right
publisher                   the record and all files of a target
notes, state, lock          the other files in bearerd's own directory
access, reader_path         who can read a file
directories                 other users and mount points in the output directories
"""

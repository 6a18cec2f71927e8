"""Apps: what a person runs, one command a file.

In: paths and settings. Out: folders, files and lines on the terminal. May import every other room,
but only inside functions, so that help, ``doctor``, ``inspect`` and errors never wait for jax.
Oracle: the command line contract, tested end to end in ``tests/apps``.
"""

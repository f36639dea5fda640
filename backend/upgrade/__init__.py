"""Brings a copy of the conftest to the version of this checkout: `make upgrade FILE=...`.

parts.py takes a conftest apart and puts it together again; change.py decides what an upgrade writes
or why it refuses; __main__.py is the command; blocks.py keeps docs/blocks.md what the shapes say.

released/ holds every version that teams may have copied, compressed, so that an edit below the line
can be told from a version, and shown. A release adds its own, before the next version is begun:

    gzip -9n < backend/tests/conftest.py > backend/upgrade/released/0.2.0.py.gz
"""

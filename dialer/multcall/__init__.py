"""The wire to Multcall: its Redis keys and the JSON that goes through them.

A site whose Multcall differs changes this package and nothing else.
"""

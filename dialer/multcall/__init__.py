"""The wire to Multcall: its Redis keys and the JSON messages in them.

If your Multcall differs, change this package and nothing else.
"""

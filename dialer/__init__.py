"""Dialer: place Multcall's calls on Asterisk PBXs and send Multcall the result of each call."""

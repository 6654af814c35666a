"""Places Multcall's calls on Asterisk PBXs and tells Multcall how each one ended."""

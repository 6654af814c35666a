"""The demo: the whole system on this machine, with simulated PBXs and a simulated Multcall."""

"""`dialer doctor`: try everything that the programs of this host need, and say what is wrong.

One function per check returns `Finding`s; table and JSON are made from the same list. The checks of
a PBX need the AMI link and are in `workers.doctor`.
"""

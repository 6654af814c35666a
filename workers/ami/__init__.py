"""The AMI link of one PBX."""

from workers.ami.link import AmiLink

__all__ = ["AmiLink"]

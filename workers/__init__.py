"""The worker of one PBX: receive tasks, originate through AMI, follow every call."""

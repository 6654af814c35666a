"""What runs on an Asterisk host: takes tasks, originates through AMI, follows every call."""

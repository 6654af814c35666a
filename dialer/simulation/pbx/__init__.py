"""A simulated Asterisk: it speaks AMI on a real TCP port, and its calls run by the clock."""

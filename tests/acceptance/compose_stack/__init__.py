"""What docker-compose.yml starts, used as an operator would."""

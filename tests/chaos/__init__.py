"""Kills, stops, restarts and cuts off every part of a real site while it dials."""

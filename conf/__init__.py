"""Hydra configurations, one group per choice a user makes."""

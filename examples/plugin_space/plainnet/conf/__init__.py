"""Configurations that join nasflow's."""

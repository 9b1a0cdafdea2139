"""Trainers: one package each, run as a child process. docs/trainers.md tells how to add one.

The supervisor imports `catalog` alone, which names modules as text; nothing heavy is loaded before a job's own process.
"""

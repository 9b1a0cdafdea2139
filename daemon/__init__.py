"""The supervisor: watches, decides, spawns, judges and deploys. Loads no torch and no mlx."""

"""The domain: what a signal, a batch, a trigger, a job, an adapter and a promotion are, and how each lies on disk.

Synchronous, silent (nothing here logs), and free of torch, mlx and gRPC. `daemon` and `inference_worker` both
build on it and never on each other.
"""

__version__ = "0.1.0"

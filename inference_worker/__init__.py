"""The inference worker: holds the base model and the adapters, and answers over gRPC.

Three kinds of thread meet here and share only what is never changed in place: the event loop (calls, routes, texts),
the step thread (`scheduler`, the engine), and short-lived threads that read adapters. Frameworks live in ``engine_*``
alone.
"""

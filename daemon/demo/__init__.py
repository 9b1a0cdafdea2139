"""`genome demo`: one real turn of the loop, on a small base model that ships with the project."""

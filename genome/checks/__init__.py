"""What `genome.fsck` looks at, one kind of thing a module. Every check only reads; what it may mend, a repair does."""

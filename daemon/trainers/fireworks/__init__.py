"""Training at Fireworks AI: the signals go there, a PEFT adapter comes back. docs/fireworks.md has the API's facts.

    api.py      requests: the key, retries, what a refusal means
    transfer.py files that go there and come back
    dataset.py  the job's signals as the service's JSON lines
    remote.py   the job there: what it is asked for, and its name on disk
    run.py      one process's part of a training, from upload to adapter

Nothing is trained here, so a process that is stopped or dies loses nothing: the next one looks for the same job there.
"""

from daemon.trainers.contract import run

raise SystemExit(run("daemon.trainers.unsloth_lora"))

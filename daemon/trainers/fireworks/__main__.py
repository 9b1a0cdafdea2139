from daemon.trainers.fireworks.run import run

raise SystemExit(run())

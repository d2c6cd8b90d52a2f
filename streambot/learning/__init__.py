"""Training: rollouts, tasks, trainers, evaluation."""

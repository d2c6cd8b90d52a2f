"""The learner: consumes experience, updates through RLlib, publishes weights. The only home of Ray."""

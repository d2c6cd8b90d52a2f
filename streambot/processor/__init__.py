"""The engine task: a sans-IO core per partition (`task`), and what runs and keeps it (`runner`)."""

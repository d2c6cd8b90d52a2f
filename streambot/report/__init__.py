"""What a person is told about a run: while it goes (`progress`) and at its end (`summary`)."""

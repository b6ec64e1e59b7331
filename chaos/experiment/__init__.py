"""What an experiment is: data, read from YAML, with a published schema."""

"""Language models that know users: users as tokens, sequences in rows, policies and reward models."""

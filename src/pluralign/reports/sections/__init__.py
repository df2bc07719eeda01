"""The sections of the report, each from results to blocks. In place of an absent part stands a line that says so."""

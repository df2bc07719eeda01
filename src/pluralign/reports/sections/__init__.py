"""The sections of the report, each from the results of a study to blocks. A part that is absent is left out by a line."""

"""The whole pipeline, from comparisons to a verdict. Not called `study`, which is the function at the front door."""

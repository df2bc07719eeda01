"""Preferences about what a machine does: tasks, personal rewards, and policies that follow them (`docs/control.md`)."""

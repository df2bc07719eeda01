"""Policies that write for a user: generation, the best of several candidates, export, rewards for other trainers."""

"""Labelled arrays -> labelled arrays: one module per step of the science, pure and lazy."""

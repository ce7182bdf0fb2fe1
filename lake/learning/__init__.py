"""Feeding machine learning: batches of samples x genes (or regions x genes) with labels, and exports."""

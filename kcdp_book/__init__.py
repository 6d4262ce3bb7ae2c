"""Figures, results, cards, the live figure and checks: what the book needs beyond the library."""

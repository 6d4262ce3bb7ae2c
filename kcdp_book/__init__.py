"""What the book needs beside the library: its figures, results, cards, live figure and checks."""

"""Tells the reader: results -> Report -> markdown and figures."""

"""The 2020 study that this project grew out of: what it printed, and what of it holds."""

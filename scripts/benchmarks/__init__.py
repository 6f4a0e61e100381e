"""What `bench.py` is made of: the engines it compares, how their turns are taken, and what is made of the figures."""

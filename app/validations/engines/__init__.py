"""The validators, and the sandboxed processes they run in.

Everything a customer sent is parsed here and nowhere else: in a child process with limits on memory, time, files and
processes, that holds no secret. This package imports neither Django nor Google's clients, so that a child starts
quickly and has nothing worth stealing.
"""

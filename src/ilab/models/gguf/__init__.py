"""GGUF files as this project reads them. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

header          what a file says of itself, read with care; torn and foreign files are found here
pretokenizers   llama.cpp's ways to cut text
reader          weights and tokens of the five families that are also written here
load            such a file as a model that answers
"""
